//! Input that is meant to hurt: it is refused with a typed issue, in bounded time, and never with a panic.

use proptest::prelude::*;

use super::EXAMPLES;
use crate::spec::{compile, render};

fn first_message(source: &[u8]) -> String {
    compile(source).expect_err("has to be refused")[0].message.clone()
}

#[test]
fn size_is_checked_before_anything_else() {
    let message = first_message(&vec![b'['; 10 << 20]);
    assert_eq!(
        message,
        "the definition is 10485760 bytes long; at most 1048576 are allowed"
    );
}

#[test]
fn binary_input_is_no_text() {
    let issues = compile(b"name: x\nta\xffsks:").unwrap_err();
    assert_eq!(
        (issues[0].line, issues[0].column, issues[0].message.as_str()),
        (Some(2), Some(3), "the definition is not UTF-8 text")
    );
    assert!(first_message(b"\x7fELF\x02\x01\x01\x00").contains("control character"));
    assert!(compile(&[0; 4096]).is_err());
}

#[test]
fn deep_nesting_is_bounded() {
    for source in [
        "[".repeat(500_000),
        "{a: ".repeat(200_000),
        "- ".repeat(500_000),
        "? ".repeat(500_000),
        "a:\n".repeat(3),
    ] {
        assert!(compile(source.as_bytes()).is_err());
    }
    let block: String = (0..500).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_eq!(
        first_message(block.as_bytes()),
        "maps and lists are nested more than 32 deep"
    );
    assert_eq!(
        first_message("[".repeat(500_000).as_bytes()),
        "maps and lists are nested more than 32 deep"
    );
}

#[test]
fn aliases_cannot_blow_up() {
    let mut source = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let uses = vec![format!("*a{}", level - 1); 10].join(", ");
        source.push_str(&format!("a{level}: &a{level} [{uses}]\n"));
    }
    let message = first_message(source.as_bytes());
    assert!(
        message.contains("too large once its aliases are filled in"),
        "{message}"
    );
    let mut texts = format!("a: &a {}\nb: [", "x".repeat(500_000));
    texts.push_str(&"*a, ".repeat(1_900));
    texts.push_str("]\n");
    assert!(compile(texts.as_bytes()).is_err());
    // A thousand tasks that share one large script do not become a gigabyte.
    let mut tasks = format!("name: x\ntasks:\n  t0: &t\n    run: \"{}\"\n", "x".repeat(100_000));
    (1..900).for_each(|index| tasks.push_str(&format!("  t{index}: *t\n")));
    assert!(compile(tasks.as_bytes()).is_err());
    assert!(compile(b"a: &a [*a]\n").is_err(), "an anchor within itself");
}

#[test]
fn templates_cannot_nest_the_stack_away() {
    let n = 50_000;
    let chains = [
        format!("{{{{ 1{} }}}}", "~1".repeat(n)),
        format!("{{{{ 1{} }}}}", "|abs".repeat(n)),
        format!("{{{{ a{} }}}}", ".b".repeat(n)),
        format!("{{{{ {}1 }}}}", "not ".repeat(n)),
        format!("{{{{ {}1 }}}}", "-".repeat(n)),
        format!("{{{{ {}1 }}}}", "(".repeat(n)),
        format!("{{{{ {}1 }}}}", "[".repeat(n)),
        format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(n / 3)),
        "{% if 1 %}".repeat(n / 3),
        "{% for a in [1] %}".repeat(n / 5),
    ];
    for template in chains {
        assert!(render(&template, &serde_json::json!({"a": 1})).is_err());
        let source = serde_json::json!({"name": "x", "tasks": {"t": {"run": template}}}).to_string();
        assert!(compile(source.as_bytes()).is_err());
    }
}

#[test]
fn templates_are_bounded_in_time_and_size() {
    let scope = serde_json::json!({"params": {"a": "x".repeat(200_000)}});
    let hostile = [
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% for i in range(100) %}{{ params.a }}{% endfor %}",
        "{{ params.a|replace('', params.a) }}",
        "{{ params.a|list|join(params.a) }}",
        "{{ (params.a|tojson|tojson|tojson|tojson|tojson ~ params.a ~ params.a)|tojson }}",
        "{% for i in range(30000) %}{% if params.a|sort == 1 %}{% endif %}{% endfor %}",
        "{% for a in [params.a ~ params.a] %}{{ a }}{% endfor %}",
        "{% set x = params.a %}{% set x = x ~ x %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ range(100000)|map('replace', '', 'x')|list|length }}{{ params.a * 1000000 }}",
    ];
    let begin = std::time::Instant::now();
    for template in hostile {
        assert!(render(template, &scope).is_err(), "{template}");
    }
    // Each takes well below a second even unoptimised; the bound is for hanging.
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let _ = compile(&bytes);
    }

    #[test]
    fn random_yaml_like_text_never_panics(text in "[a-c:{}\\[\\]\\-&*!|>'\"#?,%@ \n\t0-9.~<]{0,300}") {
        let _ = compile(text.as_bytes());
        let _ = render(&text, &serde_json::json!({"a": 1}));
    }

    #[test]
    fn random_templates_never_panic(text in "(\\{\\{|\\}\\}|\\{%|%\\}|[a-c.|~'\\[\\]() +*0-9-]|if |for |in |endif|endfor|else|range|params){0,60}") {
        let _ = render(&text, &serde_json::json!({"params": {"a": [1, 2], "b": "x"}, "a": 1}));
    }

    #[test]
    fn mutated_examples_never_panic(
        which in 0..EXAMPLES.len(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<u8>(), 1..40usize), 1..6),
    ) {
        let mut bytes = EXAMPLES[which].1.as_bytes().to_vec();
        for (place, kind, byte, length) in edits {
            if bytes.is_empty() {
                break;
            }
            let start = place.index(bytes.len());
            let end = (start + length).min(bytes.len());
            match kind {
                0 => bytes[start] = byte,
                1 => drop(bytes.drain(start..end)),
                2 => bytes.insert(start, byte),
                _ => {
                    let copy = bytes[start..end].to_vec();
                    bytes.extend_from_slice(&copy);
                }
            }
        }
        if let Ok(compiled) = compile(&bytes) {
            let json = serde_json::to_vec(&compiled.definition).unwrap();
            prop_assert_eq!(serde_json::from_slice::<crate::spec::definition::Definition>(&json).unwrap(), compiled.definition);
        }
    }
}
