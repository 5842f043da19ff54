//! `AzureKeyVaultSecret` of akv2k8s, which the daemon reads in place: its name, and a definition for clusters that have none. In
//! clusters that have akv2k8s', that one is used. What the fields of its spec mean is in [`crate::migrate`].

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

pub const GROUP: &str = "spv.no";
pub const KIND: &str = "AzureKeyVaultSecret";
pub const PLURAL: &str = "azurekeyvaultsecrets";

/// The versions that akv2k8s serves, the one that says the most first. A field means the same in all that have it.
pub const VERSIONS: [&str; 4] = ["v2beta1", "v2alpha1", "v1", "v1alpha1"];

/// A definition for clusters without akv2k8s. All versions have all fields, so that it makes no difference by which of them a
/// manifest is written or read.
///
/// # Errors
///
/// None, since it is a constant; the type says otherwise because a definition can be anything.
pub fn definition() -> Result<CustomResourceDefinition, serde_json::Error> {
    let versions: Vec<Value> = VERSIONS
        .iter()
        .map(|version| {
            json!({
                "name": version,
                "served": true,
                "storage": *version == VERSIONS[0],
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns(),
                "schema": {"openAPIV3Schema": {
                    "description": "An object of an Azure Key Vault, and the Secret or ConfigMap to put it into. Keytide reads it in the place of akv2k8s' controller.",
                    "type": "object",
                    "required": ["spec"],
                    "properties": {"spec": spec(), "status": status()},
                }},
            })
        })
        .collect();
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{PLURAL}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": format!("{KIND}List"),
                "plural": PLURAL,
                "singular": "azurekeyvaultsecret",
                "shortNames": ["akvs"],
                "categories": ["all"],
            },
            "versions": versions,
        },
    }))
}

fn columns() -> Value {
    let column = |name: &str, path: &str, type_: &str| json!({"name": name, "type": type_, "jsonPath": path});
    json!([
        column("Vault", ".spec.vault.name", "string"),
        column("Vault Object", ".spec.vault.object.name", "string"),
        column("Secret Name", ".status.secretName", "string"),
        column("ConfigMap Name", ".status.configMapName", "string"),
        column("Last Synched", ".status.lastAzureUpdate", "date"),
        column(
            "Ready",
            ".status.conditions[?(@.type==\"Ready\")].status",
            "string"
        ),
    ])
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

/// The same with a pattern that it must have.
fn named(description: &str, pattern: &str) -> Value {
    json!({"type": "string", "description": description, "pattern": pattern})
}

fn object(description: &str, required: &[&str], properties: Value) -> Value {
    let mut object =
        json!({"type": "object", "description": description, "properties": properties});
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// Name of a Kubernetes object.
const NAME: &str = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
/// Key of a Secret or ConfigMap; empty is as good as none.
const DATA_KEY: &str = r"^[-._a-zA-Z0-9]*$";

fn spec() -> Value {
    let transforms = json!({
        "type": "array",
        "maxItems": 10,
        "description": "What is done with the value of a secret, one after the other: trim, base64encode, base64decode.",
        "items": {"type": "string"},
    });
    let output = object(
        "Where the object goes. Left out: nowhere; akv2k8s' env injector reads such a resource, and nobody else.",
        &[],
        json!({
            "secret": secret(),
            "configMap": config_map(),
            "transform": transforms,
            // The name that it has in v1alpha1.
            "transforms": transforms,
        }),
    );
    object(
        "What is wanted.",
        &["vault"],
        json!({"vault": vault(), "output": output}),
    )
}

fn vault() -> Value {
    let mut vault_object = object(
        "The object of the vault.",
        &["name", "type"],
        json!({
            "name": named("Name of the object in the vault.", "^[0-9a-zA-Z-]{1,127}$"),
            "type": {
                "type": "string",
                "description": "What it is. A multi-key-value-secret is a secret whose value is JSON or YAML, each entry of which fills a key.",
                "enum": ["secret", "certificate", "key", "multi-key-value-secret"],
            },
            "version": named("Version of the object. Left out: always the latest.", "^([0-9a-f]{32})?$"),
            "contentType": {
                "type": "string",
                "description": "What the value of a multi-key-value-secret is.",
                "enum": ["application/x-json", "application/x-yaml"],
            },
            "bool": {"type": "boolean", "description": "Without effect."},
        }),
    );
    vault_object["x-kubernetes-validations"] = json!([{
        "rule": "self.type != 'multi-key-value-secret' || has(self.contentType)",
        "message": "a multi-key-value-secret needs a contentType: application/x-json or application/x-yaml",
    }]);
    object(
        "The Key Vault. A KeyVaultGrant must allow this namespace to read the object.",
        &["name", "object"],
        json!({
            "name": named("Name of the Key Vault.", "^[a-zA-Z][a-zA-Z0-9-]{1,22}[a-zA-Z0-9]$"),
            "object": vault_object,
            "azureIdentity": {
                "description": "Without effect: the grant says as whom the vault is read. An object with a name, or the name.",
                "x-kubernetes-preserve-unknown-fields": true,
            },
        }),
    )
}

fn secret() -> Value {
    object(
        "The Secret to write.",
        &["name"],
        json!({
            "name": named("Name of the Secret.", NAME),
            "type": text("Type of the Secret; left out, Opaque."),
            "dataKey": named("Key of the Secret. Needed for Opaque; other types have keys of their own.", DATA_KEY),
            "chainOrder": {
                "type": "string",
                "description": "With ensureserverfirst, the last certificate of a PFX comes first.",
                "enum": ["ensureserverfirst"],
            },
        }),
    )
}

fn config_map() -> Value {
    object(
        "The ConfigMap to write.",
        &["name"],
        json!({
            "name": named("Name of the ConfigMap.", NAME),
            "dataKey": named("Key of the ConfigMap.", DATA_KEY),
        }),
    )
}

fn status() -> Value {
    let condition = object(
        "A condition, as Kubernetes has them.",
        &["type", "status", "reason", "message", "lastTransitionTime"],
        json!({
            "type": text("What it is about: Ready, Stalled or OutsideValidity."),
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "reason": text("Why, in one word."),
            "message": text("Why, in a sentence that says what to do."),
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "observedGeneration": {"type": "integer", "format": "int64"},
        }),
    );
    object(
        "What became of it. Nothing in it is secret.",
        &[],
        json!({
            "secretName": text("The Secret that was written."),
            "secretHash": text("Digest of its content under a key of the daemon's: it changes with the content, and tells nothing about it."),
            "configMapName": text("The ConfigMap that was written."),
            "configMapHash": text("The same of its content."),
            "lastAzureUpdate": {
                "type": "string",
                "format": "date-time",
                "description": "When content last came from the vault.",
            },
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": condition,
            },
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_has_the_versions_of_akv2k8s_and_stores_one() {
        let definition = definition().expect("a definition");
        let versions = definition.spec.versions;
        let names: Vec<&str> = versions.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, VERSIONS);
        let stored: Vec<&str> = versions
            .iter()
            .filter(|version| version.storage)
            .map(|version| version.name.as_str())
            .collect();
        assert_eq!(stored, ["v2beta1"]);
        assert!(versions.iter().all(|version| version.served));
    }
}
