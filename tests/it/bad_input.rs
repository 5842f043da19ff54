//! Bytes that somebody else has written, and that are not as they should be: no panic, no unbounded time or memory, and no word
//! of what they are. Needs no cluster. The fuzzer calls the same functions (`fuzz/`).

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use self::targets::{LONGEST, TARGETS, rendered};
use crate::fixture::KEYTIDE;

/// Much more than anything here takes, without optimization and on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// The examples of certificates and of other tools' manifests, and what a fuzzer has found here.
fn examples() -> Vec<Vec<u8>> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec!["src/render/testdata".into(), "src/migrate/testdata".into()];
    folders.extend(TARGETS.map(|(name, _)| format!("fuzz/corpus/{name}")));
    let files = folders
        .iter()
        .filter_map(|folder| fs::read_dir(repository.join(folder)).ok())
        .flat_map(|entries| entries.map(|entry| entry.expect("an entry").path()));
    let mut examples: Vec<Vec<u8>> = files.map(|file| fs::read(file).expect("a file")).collect();
    let texts = [
        "",
        "db.ports.0\n{\"db\": {\"ports\": [1]}}",
        "a.b\na:\n  b: c\n",
        "A=1\nexport B=\"two\\n\"\nC='3' # three\n",
        "team-*-a\nteam-b-a",
    ];
    examples.extend(texts.map(|text| text.as_bytes().to_vec()));
    examples
}

/// Calls one with a value as long as vaults take at most, and says if it takes too long.
fn call(name: &str, target: targets::Target, bytes: &[u8]) {
    let began = Instant::now();
    target(&bytes[..bytes.len().min(LONGEST)]);
    let took = began.elapsed();
    assert!(took < SOON, "{name} took {took:?}");
}

#[test]
fn every_example_is_taken_by_all_that_takes_bytes() {
    let examples = examples();
    assert!(examples.len() > 15, "the examples are not found");
    for (name, target) in TARGETS {
        for example in &examples {
            call(name, target, example);
        }
    }
}

#[derive(Clone, Debug)]
enum Damage {
    Replace(Index, u8),
    Remove(Index, u8),
    Repeat(Index, u8, u8),
    Insert(Index, Vec<u8>),
    Cut(Index),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 1..16),
            prop::sample::select(vec![
                "*",
                "{",
                "[",
                "&a [*a, *a]",
                "\u{feff}",
                "\r\n",
                "-----BEGIN X-----"
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
        ];
        prop_oneof![
            (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Self::Replace(at, byte)),
            (any::<Index>(), any::<u8>()).prop_map(|(at, length)| Self::Remove(at, length)),
            (any::<Index>(), any::<u8>(), any::<u8>())
                .prop_map(|(at, length, times)| Self::Repeat(at, length, times)),
            (any::<Index>(), piece).prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            any::<Index>().prop_map(Self::Cut),
        ]
    }

    fn done_to(&self, bytes: &mut Vec<u8>) {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match self {
            Self::Replace(at, byte) => {
                let at = place(at);
                if let Some(there) = bytes.get_mut(at) {
                    *there = *byte;
                }
            }
            Self::Remove(at, length) => {
                let at = place(at);
                let end = bytes.len().min(at + usize::from(*length));
                bytes.drain(at..end);
            }
            Self::Repeat(at, length, times) => {
                let at = place(at);
                let end = bytes.len().min(at + usize::from(*length));
                let repeated = bytes[at..end].repeat(usize::from(*times));
                bytes.splice(at..at, repeated);
            }
            Self::Insert(at, piece) => {
                let at = place(at);
                bytes.splice(at..at, piece.iter().copied());
            }
            Self::Cut(at) => {
                let at = place(at);
                bytes.truncate(at);
            }
        }
        bytes.truncate(LONGEST);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_damage_to_an_example_is_a_panic_or_takes_long(
        which in 0..TARGETS.len(),
        example in prop::sample::select(examples()),
        damages in prop::collection::vec(Damage::any(), 1..6),
    ) {
        let mut bytes = example;
        for damage in &damages {
            damage.done_to(&mut bytes);
        }
        let (name, target) = TARGETS[which];
        call(name, target, &bytes);
    }
}

/// Aliases that stand for a billion items.
fn bomb(begin: &str) -> String {
    let mut bomb = format!("{begin}a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    bomb
}

#[test]
fn a_bomb_is_defused_wherever_yaml_is_read() {
    let yaml = bomb("");
    let expand = json!([{"expand": {"object": {"name": "value"}, "format": "yaml"}}]);
    let error = rendered(&json!([]), &expand, yaml.as_bytes()).expect_err("refused");
    assert!(
        error.to_string().contains("no YAML that can be read"),
        "{error}"
    );
    let entry = json!([{"key": "k", "object": {"name": "value", "property": "a9"}}]);
    assert!(rendered(&entry, &json!([]), yaml.as_bytes()).is_err());

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bomb.yaml");
    fs::write(
        &file,
        bomb("apiVersion: spv.no/v1\nkind: AzureKeyVaultSecret\n"),
    )
    .expect("written");
    let began = Instant::now();
    let ended = Command::new(KEYTIDE)
        .args(["migrate", "--filename"])
        .arg(&file)
        .env_clear()
        .output()
        .expect("keytide runs");
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(began.elapsed() < SOON);
}

#[test]
fn what_is_no_text_is_said_without_what_it_is() {
    let bytes = b"hunter2: \xff\xfe\n";
    let transformed = |transform: &str| json!([{"key": "k", "object": {"name": "value"}, "transforms": [transform]}]);
    let expanded =
        |format: &str| json!([{"expand": {"object": {"name": "value"}, "format": format}}]);
    let none = json!([]);
    let property = json!([{"key": "k", "object": {"name": "value", "property": "hunter2"}}]);
    let keystore = json!([{"certificate": {
        "name": "certificate", "keystore": {"format": "JKS", "password": {"name": "value"}},
    }}]);
    for (data, data_from) in [
        (&none, &expanded("json")),
        (&none, &expanded("yaml")),
        (&none, &expanded("dotenv")),
        (&none, &json!([{"certificate": {"name": "value"}}])),
        (&none, &keystore),
        (&property, &none),
        (&transformed("upper"), &none),
        (&transformed("jsonEscape"), &none),
        (&transformed("base64Decode"), &none),
        (&transformed("pemBundle"), &none),
    ] {
        let error = rendered(data, data_from, bytes)
            .expect_err("refused")
            .to_string();
        assert!(!error.contains("hunter2:"), "{error}");
    }
    // Of a secret that nothing is done with, every byte counts.
    let whole = json!([{"key": "k", "object": {"name": "value"}}]);
    let kept = rendered(&whole, &none, bytes).expect("rendered");
    assert_eq!(kept["k"].value.expose(), bytes);
}

#[test]
fn a_value_as_long_as_vaults_take_takes_no_time() {
    let long = |piece: &str| piece.repeat(LONGEST / piece.len());
    let half = LONGEST / 2;
    let stars = format!("{}\n{}", &long("*a")[..half], "a".repeat(half - 1));
    let path = format!("{}\n{}", "a.".repeat(120), "{\"a\":".repeat(4000));
    for bytes in [
        long("A=\n"),
        long("A='"),
        long("# comment\n"),
        long("- "),
        long("{"),
        long("a: "),
        long("\"\\u0000\","),
        long("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        long("-----BEGIN "),
        long("MIIM"),
        stars,
        path,
    ] {
        for (name, target) in TARGETS {
            call(name, target, bytes.as_bytes());
        }
    }
}
