use super::*;

fn resource_of(manifest: Value) -> DynamicObject {
    serde_json::from_value(manifest).expect("an object")
}

fn manifest(version: &str) -> Value {
    json!({
        "apiVersion": format!("spv.no/{version}"),
        "kind": "AzureKeyVaultSecret",
        "metadata": {
            "name": "db", "namespace": "web", "uid": "u", "resourceVersion": "7", "generation": 9,
            "labels": {"app": "web", "app.kubernetes.io/managed-by": "Helm"},
            "annotations": {
                "team": "a",
                "keytide.dev/sync-now": "1",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "argocd.argoproj.io/tracking-id": "x",
                "meta.helm.sh/release-name": "x",
                "kustomize.toolkit.fluxcd.io/checksum": "x",
            },
        },
        "spec": {
            "vault": {"name": "contoso", "object": {"name": "db", "type": "secret"}},
            "output": {"secret": {"name": "db", "dataKey": "password"}},
        },
    })
}

fn mirror(manifest: Value) -> KeyVaultMirror {
    let mut mirrors = mirrors_of(resource_of(manifest));
    assert_eq!(mirrors.len(), 1);
    mirrors.remove(0)
}

#[test]
fn a_resource_is_a_mirror_in_every_version() {
    for version in VERSIONS {
        let mirror = mirror(manifest(version));
        assert_eq!(mirror.name_any(), "azurekeyvaultsecret/db");
        assert_eq!(
            (mirror.uid().as_deref(), mirror.namespace().as_deref()),
            (Some("u"), Some("web"))
        );
        let spec = serde_json::to_value(&mirror.spec).expect("JSON");
        let expected = json!({
            "vault": {"name": "contoso"},
            "data": [{"key": "password", "object": {"kind": "secret", "name": "db"}}],
            "target": {
                "name": "db", "type": "Opaque",
                "labels": {"app": "web"}, "annotations": {"team": "a"},
            },
            "deletionPolicy": "Delete",
            "refreshInterval": "1m",
        });
        assert_eq!(spec, expected, "{version}");
        let owner = owner(&mirror).expect("an owner");
        assert_eq!(
            serde_json::to_value(&owner).expect("JSON"),
            json!({
                "apiVersion": format!("spv.no/{version}"), "kind": "AzureKeyVaultSecret", "name": "db", "uid": "u",
                "controller": false, "blockOwnerDeletion": true,
            }),
            "as akv2k8s writes it"
        );
        assert_eq!(origin(&mirror), Origin::AzureKeyVaultSecret);
        assert_eq!(mirror.annotations().len(), 1, "only what asks for a sync");
    }
}

#[test]
fn a_resource_without_output_is_none() {
    for output in [
        json!(null),
        json!({}),
        json!({"transform": ["trim"]}),
        json!({"secret": {"name": ""}}),
    ] {
        let mut manifest = manifest("v2beta1");
        manifest["spec"]["output"] = output.clone();
        assert!(mirrors_of(resource_of(manifest)).is_empty(), "{output}");
    }
}

#[test]
fn a_resource_with_two_outputs_is_two_mirrors_of_one_owner() {
    let mut manifest = manifest("v2beta1");
    manifest["spec"]["output"]["configMap"] = json!({"name": "db", "dataKey": "k"});
    let told = |mirror: &KeyVaultMirror| {
        let name = mirror.name_any();
        assert_eq!(resource_name(&name), Some("db"));
        let owner = owner(mirror).map(|owner| owner.uid);
        assert_eq!(owner.as_deref(), Some("u"));
        let uid = mirror.uid().unwrap_or_default();
        (name, uid, mirror.spec.target.kind, is_second(mirror))
    };
    let both: Vec<_> = mirrors_of(resource_of(manifest.clone()))
        .iter()
        .map(told)
        .collect();
    let first = "azurekeyvaultsecret/db".to_owned();
    let expected = [
        (first.clone(), "u".to_owned(), TargetKind::Secret, false),
        (
            format!("{first}/configmap"),
            "u.configmap".to_owned(),
            TargetKind::ConfigMap,
            true,
        ),
    ];
    assert_eq!(both, expected);
    manifest["spec"]["output"]["secret"].take();
    let alone = (
        first,
        "u.configmap".to_owned(),
        TargetKind::ConfigMap,
        false,
    );
    assert_eq!(told(&mirror(manifest)), alone);
}

#[test]
fn what_is_not_understood_says_so_and_keeps_its_target() {
    let mut manifest = manifest("v1");
    manifest["spec"]["output"]["secret"]["hologram"] = json!(true);
    let mirror = mirror(manifest);
    let problem = problem(&mirror).expect("a problem");
    assert!(problem.contains("hologram"), "{problem}");
    assert_eq!(mirror.spec.target.name, "db");
    assert!(crate::render::sources(&mirror.spec).is_empty());
}

#[test]
fn what_is_not_understood_keeps_both_of_its_targets() {
    let mut manifest = manifest("v1");
    manifest["spec"]["output"]["configMap"] = json!({"name": "flags", "dataKey": "k"});
    let told = |manifest: &Value| -> Vec<_> {
        let mirrors = mirrors_of(resource_of(manifest.clone())).into_iter();
        let told = mirrors.map(|it| {
            let target = &it.spec.target;
            (it.name_any(), it.uid(), target.kind, target.name.clone())
        });
        told.collect()
    };
    let before = told(&manifest);
    assert_eq!(before.len(), 2);
    manifest["spec"]["output"]["secret"]["hologram"] = json!(true);
    assert_eq!(told(&manifest), before);
}

#[test]
fn the_generation_is_that_of_what_is_wanted() {
    let generation = |change: fn(&mut Value)| {
        let mut manifest = manifest("v1");
        change(&mut manifest);
        mirror(manifest).metadata.generation
    };
    let before = generation(|_| ());
    let status = |manifest: &mut Value| {
        manifest["metadata"]["generation"] = json!(10);
        manifest["status"] = json!({"secretHash": "x"});
    };
    assert_eq!(generation(status), before);
    let label = |manifest: &mut Value| manifest["metadata"]["labels"]["more"] = json!("x");
    assert_ne!(generation(label), before);
    let version = |manifest: &mut Value| {
        manifest["spec"]["vault"]["object"]["version"] = json!("0123456789abcdef0123456789abcdef");
    };
    assert_ne!(generation(version), before);
}

#[test]
fn a_status_of_akv2k8s_is_told_by_its_md5() {
    for (hash, is_theirs) in [
        (json!("d41d8cd98f00b204e9800998ecf8427e"), true),
        (json!("Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmE"), false),
        (json!(null), false),
    ] {
        let mut manifest = manifest("v1");
        manifest["status"] = json!({"secretHash": hash});
        assert_eq!(
            has_status_of_akv2k8s(&mirror(manifest)),
            is_theirs,
            "{hash}"
        );
    }
}

#[test]
fn a_mirror_of_ones_own_is_not_read_in_place() {
    let spec = migrate::nothing(TargetKind::Secret, "");
    let mut own = KeyVaultMirror::new("azurekeyvaultsecret", spec);
    own.metadata.uid = Some("u".into());
    own.metadata.owner_references = Some(vec![OwnerReference::default()]);
    assert!(!is_in_place(&own));
    assert_eq!(origin(&own), Origin::KeyVaultMirror);
    assert_eq!(
        owner(&own).map(|owner| (owner.kind, owner.controller)),
        Some(("KeyVaultMirror".into(), None))
    );
    assert_eq!(reference(&own).kind.as_deref(), Some("KeyVaultMirror"));
}

#[test]
fn the_version_that_says_the_most_is_read() {
    for (served, read) in [
        (&["v1", "v2beta1"][..], Some("v2beta1")),
        (&["v1alpha1", "v1"], Some("v1")),
        (&["v3"], None),
    ] {
        assert_eq!(version(served.iter().copied()), read);
    }
}
