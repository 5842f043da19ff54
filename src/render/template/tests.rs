use std::time::{Duration, Instant};

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const CANARY: &str = "canary-9b1f";

fn input(value: &[u8]) -> RenderedKey {
    RenderedKey {
        value: value.to_vec().into(),
        made_of: None,
        kind: ObjectKind::Secret,
        object: "object".to_owned(),
        secret: Arc::new(VaultSecret {
            value: value.to_vec().into(),
            version: "1".to_owned(),
            updated: None,
            not_before: None,
            expires: None,
        }),
    }
}

fn inputs(values: &[(&str, &[u8])]) -> Rendered {
    let keys = values.iter();
    keys.map(|(key, value)| ((*key).to_owned(), input(value)))
        .collect()
}

fn made(text: &str, values: &[(&str, &[u8])]) -> Result<String, TemplateError> {
    let template = json!({"mergePolicy": "Replace", "data": {"made": text}});
    let template = serde_json::from_value(template).expect("a template");
    let rendered = fill(&template, inputs(values))?;
    let value = rendered["made"].value.expose().to_vec();
    Ok(String::from_utf8(value).expect("text"))
}

#[test]
fn keys_are_put_in_byte_for_byte() {
    let values: [(&str, &[u8]); 3] = [
        ("user", b"app"),
        ("tls.crt", b"-----BEGIN\n<&>\n"),
        ("with-dash", "\u{e4}".as_bytes()),
    ];
    for (text, expected) in [
        ("{{ data.user }}\n", "app\n"),
        ("{{ data.user }}", "app"),
        ("{{ data[\"tls.crt\"] }}", "-----BEGIN\n<&>\n"),
        ("{{ data['with-dash'] }}", "\u{e4}"),
        ("a: {{- data.user -}} \n", "a:app"),
        (
            "{% if data.user == \"app\" %}yes{% else %}no{% endif %}",
            "yes",
        ),
        (
            "{% if data.none is defined %}yes{% else %}no{% endif %}",
            "no",
        ),
        ("{{ data.none|default(\"x\") }}", "x"),
        (
            "{% for key in data %}{{ key }} {% endfor %}",
            "tls.crt user with-dash ",
        ),
        ("no tag", "no tag"),
    ] {
        assert_eq!(made(text, &values).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn filters_do_what_connection_strings_and_files_need() {
    let values: [(&str, &[u8]); 5] = [
        ("p", "p@ss/w\u{f6}rd~".as_bytes()),
        ("q", b"a\"b'c\n"),
        ("b", b"YSBi\n"),
        ("hosts", b"a,b"),
        ("pem", b"x\ny\n"),
    ];
    for (text, expected) in [
        ("{{ data.p|urlencode }}", "p%40ss%2Fw%C3%B6rd~"),
        ("{{ data.q|tojson }}", r#""a\"b'c\n""#),
        ("{{ data.q|trim|quote }}", r#"'a"b'\''c'"#),
        ("{{ ('u:' ~ data.hosts)|b64encode }}", "dTphLGI="),
        ("{{ data.b|b64decode|upper }}", "A B"),
        ("{{ data.hosts|replace(',', ';')|lower }}", "a;b"),
        (
            "{% for h in data.hosts|split(',') %}{{ h }}:1{% if not loop.last %},{% endif %}{% endfor %}",
            "a:1,b:1",
        ),
        (
            "a: |\n  {{ data.pem|trim|indent(2) }}\n",
            "a: |\n  x\n  y\n",
        ),
        (
            "{% for l in data.pem|lines %}[{{ l }}]{% endfor %}",
            "[x][y]",
        ),
    ] {
        assert_eq!(made(text, &values).as_deref(), Ok(expected), "{text}");
    }
    let all = made(
        "{% for k, v in data|items %}{{ k }}={{ v|tojson }}\n{% endfor %}{{ data|tojson }}",
        &values[3..],
    );
    assert_eq!(
        all.as_deref(),
        Ok("hosts=\"a,b\"\npem=\"x\\ny\\n\"\n{\"hosts\":\"a,b\",\"pem\":\"x\\ny\\n\"}")
    );
}

#[test]
fn what_is_wrong_is_said_with_name_and_line_and_never_with_a_value() {
    let values: [(&str, &[u8]); 2] = [("a", CANARY.as_bytes()), ("bytes", b"canary-9b1f\xff")];
    for (text, words) in [
        ("\n{{ data.none }}", "data.none is not known"),
        ("\n{{ data[\"no.ne\"] }}", "data.no.ne is not known"),
        ("\n{{ password }}", "password is not known"),
        ("\n{{ data.a ~ data.none }}", "data.none is not known"),
        ("\n{{ data.none|trim }}", "data.none is not known"),
        ("\n{% if data.none %}{% endif %}", "data.none is not known"),
        ("\n{{ data.a.b }}", "is not known"),
        (
            "\n{{ data[data.a] }}",
            "a key that it looks up is not known",
        ),
        (
            "\n{% for part in data.a|split(\",\") %}{{ data[part] }}{% endfor %}",
            "a key that it looks up is not known",
        ),
        ("\n{{ data.bytes }}", "data.bytes is no text"),
        ("\n{{ data.bytes|b64encode }}", "data.bytes is no text"),
        ("\n{{ data|tojson }}", "data.bytes is no text"),
        (
            "\n{{ data.a|b64decode }}",
            "filter b64decode: what it is given is no base64",
        ),
        ("\n{{ data.a|items }}", "filter items: it takes data"),
        ("\n{{ data.a|replace(\"\", data.a) }}", "filter replace"),
        ("\n{{ data.a|replace }}", "missing argument"),
        ("\n{{ data.a|indent(data.a) }}", ""),
        ("\n{{ data.a|trim(data.a) }}", ""),
        ("\n{{ -data.a }}", ""),
        ("\n{{ data.a - data.a }}", ""),
        ("\n{{ data.a < 1 - data.a }}", ""),
        ("\n{{ data.a() }}", ""),
        ("\n{{ data.a.upper() }}", ""),
        ("\n{{ data.a is divisibleby(2) }}", ""),
        ("\n{{ data.a in 1 }}", ""),
        ("\n{% for a, b in data.a|split(\"-\") %}{% endfor %}", ""),
        ("\n{% if %}", "syntax error"),
        ("\n{{ data.a", "syntax error"),
        ("\n{% set a = 1 %}", "`{% set %}` can't be used"),
        ("\n{{ data.a|nosuch }}", "there is no filter nosuch"),
    ] {
        let error = made(text, &values).expect_err(text);
        let said = format!("{error} {error:?}");
        assert!(said.contains(words), "{text}: {said}");
        assert!(!said.contains(CANARY), "{text}: {said}");
        assert_eq!((error.key.as_str(), error.line), ("made", 2), "{text}");
    }
    let error = made("{{ data.none\n ~ data.a }}", &values).expect_err("an error");
    assert!(error.to_string().contains("data.none is not"), "{error}");
}

#[test]
fn what_is_not_told_by_an_error_is_one_all_the_same() {
    let error = made("{{ data }}", &[("a", b"x"), ("bytes", b"\xff")]).expect_err("refused");
    assert_eq!(error.problem, TemplateProblem::NotText("data.bytes".into()));
}

#[test]
fn what_can_never_be_rendered_is_refused_before_anything_is_read() {
    for text in [
        "{{ data.",
        "{% if a %}",
        "{{ data.a|nosuch }}",
        "{% set a = 1 %}",
    ] {
        let template = serde_json::from_value(json!({"data": {"made": text}}));
        assert!(check(&template.expect("a template")).is_err(), "{text}");
    }
}

#[test]
fn the_templates_of_the_book_make_what_they_are_there_for() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/src/values.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let blocks = page.split("```yaml\n").skip(1);
    let blocks = blocks.filter_map(|rest| Some(rest.split_once("```")?.0));
    let examples = blocks.filter(|block| block.contains("template:"));
    let values: [(&str, &[u8]); 4] = [
        ("user", b"app"),
        ("password", b"a'b/\"c\""),
        ("ca.crt", b"-----BEGIN\nMII\n"),
        ("with-dash", b"x"),
    ];
    let mut made = Rendered::new();
    for example in examples {
        let manifest: serde_json::Value = serde_saphyr::from_str(example).expect("YAML");
        let template = manifest["spec"]["template"].clone();
        let template = serde_json::from_value(template).expect("a template");
        made.extend(fill(&template, inputs(&values)).expect("rendered"));
    }
    let text = |key: &str| String::from_utf8(made[key].value.expose().to_vec()).expect("text");
    assert_eq!(
        text("url"),
        "postgres://app:a%27b%2F%22c%22@db.example.com/app"
    );
    let app: serde_json::Value = serde_saphyr::from_str(&text("app.yaml")).expect("YAML");
    assert_eq!(
        app,
        json!({"database": {"user": "app", "password": "a'b/\"c\"", "ca": "-----BEGIN\nMII\n"}})
    );
    assert!(
        text("web.env").contains("\nPASSWORD='a'\\''b/\"c\"'\n"),
        "{}",
        text("web.env")
    );
    assert!(
        text("web.env").contains("\nWITH_DASH='x'\n"),
        "{}",
        text("web.env")
    );
}

/// What could take for ever, or all memory, takes neither.
#[test]
fn bombs_are_defused() {
    let quotes = "\"\\".repeat(10_000);
    let long = "a".repeat(25_000);
    let many: Vec<(String, Vec<u8>)> = (0..1000)
        .map(|n| (format!("k{n}"), long.clone().into_bytes()))
        .collect();
    let many: Vec<(&str, &[u8])> = many
        .iter()
        .map(|(key, value)| (key.as_str(), &value[..]))
        .collect();
    let values: Vec<(&str, &[u8])> = [
        &[("q", quotes.as_bytes()), ("l", long.as_bytes())],
        &many[..],
    ]
    .concat();
    let nested = |times: usize, open: &str, inner: &str| {
        [
            open.repeat(times),
            inner.to_owned(),
            "{% endfor %}".repeat(times),
        ]
        .concat()
    };
    let bombs = [
        format!("{{{{ data.q{} }}}}", "|tojson".repeat(60)),
        format!("{{{{ data.l{} }}}}", "|b64encode".repeat(500)),
        format!("{{{{ data.l{} }}}}", "|replace(\"a\", data.l)".repeat(5)),
        "{{ data.l|replace(\"a\", data.l) }}".to_owned(),
        nested(6, "{% for k in data %}", "x"),
        nested(4, "{% for k, v in data|items %}", "{{ v ~ v ~ v ~ v }}"),
        nested(5, "{% for v in data.l|split(\"a\") %}", "{{ v }}"),
        nested(140, "{% for v in data %}", ""),
        "{{ data }}".repeat(100),
        "{{ data.l }}".repeat(4000),
        format!(
            "{}data.l{}",
            "{{ ".to_owned() + &"(".repeat(30_000),
            ")".repeat(30_000) + " }}"
        ),
        format!("{{{{ {}data.l }}}}", "not ".repeat(16_000)),
    ];
    for bomb in bombs {
        let begun = Instant::now();
        assert!(
            made(&bomb, &values).is_err(),
            "{}",
            &bomb[..40.min(bomb.len())]
        );
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{}",
            &bomb[..40.min(bomb.len())]
        );
    }
}

#[test]
fn content_made_of_several_objects_changes_and_expires_with_each() {
    let at = |second| Timestamp::from_second(second).ok();
    let key = |object: &str, version: &str, updated, expires| {
        let mut key = input(b"x");
        let secret = Arc::make_mut(&mut key.secret);
        secret.version = version.to_owned();
        (secret.updated, secret.expires) = (at(updated), at(expires));
        key.object = object.to_owned();
        key
    };
    let inputs = Rendered::from([
        ("a".to_owned(), key("object-a", "1", 10, 50)),
        ("b".to_owned(), key("object-b", "2", 20, 60)),
        ("c".to_owned(), key("object-c", "3", 30, 40)),
    ]);
    let template = json!({"data": {"ab": "{{ data.a }}{{ data.b }}", "all": "nothing put in"}});
    let template = serde_json::from_value(template).expect("a template");
    let rendered = fill(&template, inputs).expect("rendered");
    let told = |key: &str| {
        let RenderedKey { object, secret, .. } = &rendered[key];
        (
            object.clone(),
            secret.version.clone(),
            secret.updated,
            secret.expires,
        )
    };
    assert_eq!(
        told("ab"),
        ("object-a, object-b".into(), "2".into(), at(20), at(50))
    );
    assert_eq!(
        told("all"),
        (
            "object-a, object-b, object-c".into(),
            "3".into(),
            at(30),
            at(40)
        )
    );
    assert_eq!(told("a").0, "object-a");
}

/// Words of Jinja, and of none.
fn template_text() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "-",
        "\"",
        "'",
        "\\",
        " data",
        ".a",
        ".none",
        "[\"b.c\"]",
        "|",
        "tojson",
        "trim",
        "split(\",\")",
        "items",
        "indent(2)",
        "~",
        " if ",
        " else ",
        " elif ",
        " endif ",
        " for x in ",
        " endfor ",
        " in ",
        " is defined",
        "(",
        ")",
        "[",
        "]",
        ",",
        "1",
        "==",
        "not ",
        "\n",
        "text",
        "set x = ",
        "raw",
        "endraw",
        "*",
        "\u{e4}",
    ]);
    let word = prop_oneof![8 => words.prop_map(str::to_owned), 1 => ".{0,3}"];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_text_panics_or_tells_a_value(text in template_text()) {
        let values: [(&str, &[u8]); 2] = [("a", CANARY.as_bytes()), ("b.c", b"canary-9b1f\xff")];
        if let Err(error) = made(&text, &values) {
            let said = format!("{error} {error:?}");
            prop_assert!(!said.contains(CANARY));
        }
    }

    #[test]
    fn text_without_tags_is_what_it_makes(text in "[^{]{0,200}") {
        prop_assert_eq!(made(&text, &[]), Ok(text));
    }

    #[test]
    fn content_is_put_in_as_it_is(value in ".{0,100}") {
        prop_assert_eq!(made("{{ data.a }}", &[("a", value.as_bytes())]), Ok(value.clone()));
        let json = made("{{ data.a|tojson }}", &[("a", value.as_bytes())]).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), value);
    }
}
