//! Who may mirror what: a mirror without a grant says what is missing, and reads nothing.

use keytide::api::KeyVaultGrant;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use serde_json::json;

use crate::fixture::Fixture;

#[tokio::test]
async fn a_grant_that_is_missing_is_named_and_one_that_goes_ends_reads_and_keeps_data() {
    let fixture = Fixture::without_grant("grantless").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "first");
    fixture.set("clock", "v");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    let message = fixture.reason("m", "NotGranted").await;
    for word in [
        fixture.namespace.as_str(),
        "secret s",
        &fixture.host(),
        "KeyVaultGrant",
    ] {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
    let gets = || fixture.azure().requests().gets_of(&fixture.host(), "s");
    assert_eq!(gets(), 0, "read without a grant");

    let (wide, narrow) = (
        format!("{}-wide", fixture.namespace),
        format!("{}-narrow", fixture.namespace),
    );
    fixture.apply(&fixture.grant_of(&wide, "*")).await;
    fixture.apply(&fixture.grant_of(&narrow, "clock")).await;
    fixture.secret_has("t", "k", b"first").await;
    fixture
        .apply(&fixture.mirror("clock", "clock", &[("k", "clock")]))
        .await;
    fixture.secret_has("clock", "k", b"v").await;

    let grants: Api<KeyVaultGrant> = Api::all(fixture.client.clone());
    grants
        .delete(&wide, &DeleteParams::default())
        .await
        .expect("deleted");
    fixture.reason("m", "NotGranted").await;
    let (before, told) = (
        gets(),
        fixture.mirrors().get("m").await.expect("the mirror"),
    );
    fixture.set("s", "second");
    fixture.cycles(2).await;
    assert_eq!(gets(), before, "read without a grant");
    let again = fixture.mirrors().get("m").await.expect("the mirror");
    assert_eq!(again.resource_version(), told.resource_version());
    fixture.secret_has("t", "k", b"first").await;

    fixture.apply(&fixture.grant_of(&wide, "S")).await;
    fixture.secret_has("t", "k", b"second").await;
    fixture.reason("m", "Mirrored").await;
}

#[tokio::test]
async fn grants_that_name_two_identities_are_ambiguous() {
    let fixture = Fixture::new("ambiguous").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    let name = format!("{}-other", fixture.namespace);
    let mut other = fixture.grant_of(&name, "s");
    other["spec"]["identity"] = json!({"clientId": "22222222-2222-4222-8222-222222222222"});
    fixture.apply(&other).await;
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    let message = fixture.reason("m", "AmbiguousGrant").await;
    assert!(
        message.contains("22222222") && message.contains("the daemon's own identity"),
        "{message}"
    );
    assert_eq!(fixture.azure().requests().gets_of(&fixture.host(), "s"), 0);

    let grants: Api<KeyVaultGrant> = Api::all(fixture.client.clone());
    grants
        .delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    fixture.secret_has("t", "k", b"v").await;
    fixture.reason("m", "Mirrored").await;
}

#[tokio::test]
async fn labels_of_a_namespace_give_and_take_the_right_to_read() {
    let fixture = Fixture::without_grant("labelled").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "first");
    let mut grant = fixture.grant_of(&fixture.namespace, "*");
    grant["spec"]["namespaces"] = json!(null);
    grant["spec"]["namespaceSelector"] = json!({"matchLabels": {"team": fixture.namespace}});
    fixture.apply(&grant).await;
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture.reason("m", "NotGranted").await;
    let label = async |label: &str| {
        let arguments = ["label", "namespace", &fixture.namespace, label];
        fixture.testbed.kubectl(&arguments).await.ok()
    };
    label(&format!("team={}", fixture.namespace)).await;
    fixture.secret_has("t", "k", b"first").await;
    fixture.reason("m", "Mirrored").await;
    label("team-").await;
    fixture.reason("m", "NotGranted").await;
    fixture.secret_has("t", "k", b"first").await;
}

#[tokio::test]
async fn a_mirror_that_names_a_service_account_says_that_this_is_off() {
    let fixture = Fixture::new("accounts-off").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    let mut mirror = fixture.mirror("m", "t", &[("k", "s")]);
    mirror["spec"]["identity"] = json!({"serviceAccountName": "runner"});
    fixture.apply(&mirror).await;
    let message = fixture.reason("m", "ServiceAccountNotUsable").await;
    assert!(message.contains("identity.serviceAccounts"), "{message}");
    assert_eq!(fixture.azure().requests().gets_of(&fixture.host(), "s"), 0);
}
