//! Whole specs: what is read, what is refused and with which words.

use std::error::Error;

use proptest::prelude::*;

use super::*;
use crate::Usd;

const YAML: &str = include_str!("../../../../docs/examples/finetune.yaml");
const TOML: &str = include_str!("../../../../docs/examples/finetune.toml");
const JSON: &str = include_str!("../../../../docs/examples/finetune.json");
const HELLO: &str = include_str!("../../../../docs/examples/hello.yaml");

/// The whole of the public format, as it stands in the documentation.
const FULL: &str = r#"
version: 1
kind: task
name: finetune
image: ghcr.io/me/train@sha256:0011
files: [{from: ., to: /work, ignore: .welkinignore}]
run: |
  python train.py --resume auto
env: {MODEL: smol}
secrets: [HF_TOKEN]
resources:
  gpu: "H100|A100:40GB..:1..2"
  cpu: "8.."
  memory: "64GB.."
  disk: 200GB
  shm: 16GB
nodes: 1
where: {regions: [eu, us-east], rtt_ms: 30, reliability: ">=0.995", operators: {deny: ["0x00000000000000000000000000000000000000ab"]}}
trust: {isolation: vm, attestation: preferred, data: encrypted}
price: {spot: auto, max_per_hour: 2.50, budget: 40, currency: usd}
volumes: [{name: ckpt, path: /ckpt, size: 50GB, keep: 7d}]
checkpoint: {path: /ckpt, every: 10m, on_preempt: 60s}
retry: {on: [no-capacity, preempted, host-lost, unhealthy], max: 10, for: 12h}
timeouts: {queue: 30m, startup: 5m, run: 24h, idle: 30m}
ports: [{port: 8000, name: api, public: false}]
network: {egress: [pypi.org:443]}
health: {http: /health, port: 8000, every: 15s, after: 3}
scale: {min: 0, max: 4, on: queue, target: 2, cooldown: 2m, warm: 1}
model: {name: smollm2, api: openai}
stream: {codec: h264, fps: 60, width: 1920, height: 1080, input: [gamepad, keyboard]}
notify: [{on: [failed, budget80, preempted], webhook: "https://example.org/hook"}]
"#;

/// Reads a spec and returns its normal form, or the chain of what is wrong.
fn run(file: &str, text: &str) -> String {
    match parse(file, text) {
        Ok(spec) => spec.to_json().to_string(),
        Err(error) => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

fn yaml(text: &str) -> String {
    run("task.yaml", text)
}

/// As [`yaml`], without the file's name.
fn reason(text: &str) -> String {
    yaml(text).trim_start_matches("task.yaml: ").to_owned()
}

#[test]
fn the_three_formats_are_equal() {
    let spec = parse("finetune.yaml", YAML).unwrap();
    assert_eq!(parse("finetune.toml", TOML).unwrap(), spec);
    assert_eq!(parse("a.b/Finetune.JSON", JSON).unwrap(), spec);
    assert_eq!(spec.unsupported(), []);
    assert_eq!(spec.env.0["LEARNING_RATE"], EnvValue::Set("0.0010".to_owned()));
}

#[test]
fn the_smallest_task_has_small_needs() {
    let spec = parse("hello.yaml", HELLO).unwrap();
    assert_eq!(spec.argv().unwrap()[..2], ["/bin/sh", "-c"]);
    let needs = spec.needs();
    assert_eq!(needs, Needs::default());
    assert_eq!((needs.cpu_milli_min, needs.memory_bytes_min), (1_000, 512 << 20));
    assert_eq!((needs.disk_bytes_min, needs.gpu), (256 << 20, None));
    assert_eq!(needs.isolation_min, crate::Tier::Container);
}

#[test]
fn needs_are_the_numbers_of_the_spec() {
    let more = "  disk: 200GB\n  shm: 16GB\n  features: [hevc, av1, hevc]\n  driver: 550";
    let with_more = YAML.replace("  disk: 200GB", more);
    assert_ne!(with_more, YAML, "the example has a line with its disk");
    let needs = parse("finetune.yaml", &with_more).unwrap().needs();
    assert_eq!(
        serde_json::to_value(&needs).unwrap(),
        serde_json::json!({
            "cpu_milli_min": 8_000,
            "memory_bytes_min": 64_000_000_000_u64,
            "disk_bytes_min": 200_000_000_000_u64,
            "shm_bytes": 16_000_000_000_u64,
            "gpu": {
                "models": ["h100", "a100"],
                "vram": { "min": 40_000_000_000_u64, "max": null },
                "count": { "min": 1, "max": 2 },
                "form": null,
            },
            "isolation_min": "container",
            "regions": ["eu", "us-east"],
            "reliability_min_bp": 9_950,
            "operators_allow": [],
            "operators_deny": ["0x0000000000000000000000000000000000000bad"],
            "max_per_hour": 2_500_000,
            "capacity": "on-demand",
            "features": ["hevc", "av1"],
            "driver_min": 550,
            "rtt_us_max": null,
            "app": null,
            "is_app_required": false,
            "policy": "cheapest",
        })
    );
}

#[test]
fn a_spec_says_how_its_container_is_chosen() {
    let needs = |text: &str| parse("a.yaml", text).unwrap().needs();
    let near = needs("where: {rtt_ms: 30, policy: closest}\nprice: {spot: only}");
    assert_eq!((near.rtt_us_max, near.policy), (Some(30_000), crate::Policy::Closest));
    assert_eq!(near.capacity, crate::CapacityType::Spot);
    let error = parse("a.yaml", "where: {policy: nearest}").unwrap_err().to_string();
    assert!(error.contains("where.policy"), "{error}");
}

#[test]
fn every_documented_key_is_read_and_what_is_not_carried_out_is_listed() {
    let spec = parse("task.yaml", FULL).unwrap();
    let keys: Vec<_> = spec.unsupported().iter().map(|gap| gap.key).collect();
    assert_eq!(
        keys.join(" "),
        "files.ignore trust.isolation trust.attestation trust.data \
         timeouts.idle volumes checkpoint.every ports network health scale model stream notify"
    );
    let again = parse("task.json", &spec.to_json().to_string()).unwrap();
    assert_eq!(again, spec);
}

#[test]
fn what_is_not_carried_out_is_listed() {
    for (text, expected) in [
        ("kind: task\nnodes: 1\ntrust: {isolation: container, attestation: none, data: plain}", ""),
        ("price: {spot: never}\nresources: {memory: 1GB, cpu: 2, gpu: 'H100:80GB:1..2'}", ""),
        ("trust: {isolation: process}", ""),
        ("kind: service", "kind"),
        ("nodes: 64", ""),
        ("nodes: 65", "nodes"),
        ("nodes: 2\nprice: {reserve: rsv_00000000000000000000000000000001}", "price.reserve"),
        ("nodes: 2\ncheckpoint: {path: /work/ckpt, on_preempt: 60s}", "checkpoint"),
        ("rootfs: ./dir", "rootfs"),
        ("preset: torch", "preset"),
        ("trust: {isolation: sandbox}", "trust.isolation"),
        ("price: {spot: only}", ""),
        ("price: {reserve: rsv_00112233445566778899aabbccddeeff}", ""),
        ("checkpoint: {path: /a, every: 5m}", "checkpoint.every"),
        ("resources: {memory: 1GB..2GB}", "resources.memory"),
        ("resources: {cpu: ..2, disk: ..2GB}", "resources.cpu resources.disk"),
        ("network: {egress: []}", "network"),
        ("scale: {max: 1}", "scale"),
    ] {
        let spec = parse("task.yaml", text).unwrap();
        let keys: Vec<_> = spec.unsupported().iter().map(|gap| gap.key).collect();
        assert_eq!(keys.join(" "), expected, "{text}");
    }
    let gap = Unsupported { key: "nodes", why: "at most 64 containers work on one task yet" };
    assert_eq!(gap.to_string(), "`nodes`: at most 64 containers work on one task yet");
}

#[test]
fn normal_form() {
    for (text, expected) in [
        ("{}", r#"{"nodes":1,"version":1}"#),
        ("run: 'true'\nresources:\nfiles:", r#"{"nodes":1,"run":"true","version":1}"#),
        (
            "resources: {cpu: 0.5, gpu: 8, memory: 1.5gib.., shm: 0B}",
            r#"{"nodes":1,"resources":{"cpu":"0.5","gpu":"any:8","memory":"1536MiB..","shm":"0B"},"version":1}"#,
        ),
        (
            "price: {max_per_hour: 2.50, budget: $40}",
            r#"{"nodes":1,"price":{"budget":"40.00","max_per_hour":"2.50"},"version":1}"#,
        ),
        ("env: [B=1=2, A]", r#"{"env":["A","B=1=2"],"nodes":1,"version":1}"#),
        (
            "retry: {}",
            r#"{"nodes":1,"retry":{"max":3,"on":["no-capacity","preempted","host-lost","unhealthy"]},"version":1}"#,
        ),
        ("timeouts: {run: 90m}", r#"{"nodes":1,"timeouts":{"run":"1h30m"},"version":1}"#),
        (
            "where: {reliability: 0.995}",
            r#"{"nodes":1,"version":1,"where":{"reliability":">=0.995"}}"#,
        ),
    ] {
        assert_eq!(yaml(text), expected, "{text}");
    }
}

#[test]
fn unknown_keys_and_words() {
    for (text, expected) in [
        ("imgae: x", "task.yaml: imgae: unknown key: did you mean `image`?"),
        ("gpu: H100", "task.yaml: gpu: unknown key: did you mean `resources.gpu`?"),
        (
            "<<: {}",
            "task.yaml: <<: unknown key: known are version, kind, name, image, rootfs, preset, files, run, command, env, secrets, resources, nodes, where, trust, price, volumes, checkpoint, retry, timeouts, ports, network, health, scale, model, stream, notify",
        ),
        (
            "resources: {memroy: 1GB}",
            "task.yaml: resources.memroy: unknown key: did you mean `memory`?",
        ),
        (
            "resources: {memroy: }",
            "task.yaml: resources.memroy: unknown key: did you mean `memory`?",
        ),
        (
            "files: [{from: ., to: /a}, {from: ., too: /b}]",
            "task.yaml: files[1].too: unknown key: did you mean `to`?",
        ),
        ("files: [{from: .}]", "task.yaml: files[0].to: is missing"),
        ("kind: tsak", "task.yaml: kind: `tsak` is not known here: did you mean `task`?"),
        (
            "retry: {on: [oom]}",
            "task.yaml: retry.on[0]: `oom` is not known here: known are no-capacity, preempted, host-lost, unhealthy, failed",
        ),
        (
            "trust: {isolation: 5}",
            "task.yaml: trust.isolation: is the number 5, expected one of none, process, container, sandbox, vm, confidential",
        ),
        (
            "\"a\\e[2J\": 1",
            "task.yaml: a\\u{1b}[2J: unknown key: known are version, kind, name, image, rootfs, preset, files, run, command, env, secrets, resources, nodes, where, trust, price, volumes, checkpoint, retry, timeouts, ports, network, health, scale, model, stream, notify",
        ),
    ] {
        assert_eq!(yaml(text), expected, "{text}");
    }
}

#[test]
fn wrong_values() {
    for (text, expected) in [
        ("resources: {memory: 64}", "resources.memory: `64` has no unit: write 64GB or 64GiB"),
        (
            "resources: {memory: [1GB]}",
            "resources.memory: is a list, expected a text like 64GB.. or 512MiB",
        ),
        (
            "resources: 64GB",
            "resources: is the text `64GB`, expected a table with gpu, cpu, memory, disk, shm, \
             features, driver",
        ),
        ("where: {regions: eu}", "where.regions: is the text `eu`, expected a list"),
        (
            "where: {regions: [EU]}",
            "where.regions[0]: `EU` is not a region: use 1 to 32 of a-z, 0-9, `-` and `.`, beginning with a letter",
        ),
        (
            "where: {rtt_ms: -1}",
            "where.rtt_ms: is the number -1, expected a whole number from 0 to 4294967295",
        ),
        ("image: 5", "image: is the number 5, expected a text: write it in quotes"),
        ("run: [a]", "run: is a list, expected a text"),
        ("command: [sleep, 5]", "command[1]: is the number 5, expected a text: write it in quotes"),
        ("nodes: many", "nodes: is the text `many`, expected a whole number from 0 to 65535"),
    ] {
        assert_eq!(reason(text), expected, "{text}");
    }
}

#[test]
fn wrong_values_of_variables_money_and_time() {
    for (text, expected) in [
        (
            "env: {A: 1.10}",
            "env.A: a number with a point must stand in quotes, to be kept as it is written",
        ),
        (
            "env: {A: True}",
            "env.A: true and false must stand in quotes, to be kept as they are written",
        ),
        (
            "env: {A: }",
            "env.A: has no value: write \"\" for an empty one; to take the caller's, write `env` as a list with the bare name",
        ),
        ("env: [A, 5]", "env[1]: is the number 5, expected a text: write it in quotes"),
        (
            "ports: [{port: 8000, public: maybe}]",
            "ports[0].public: is the text `maybe`, expected true or false",
        ),
        (
            "price: {max_per_hour: .inf}",
            "price.max_per_hour: `inf` is not an amount in US dollars: write it like 2.50, with at most 6 decimals",
        ),
        (
            "price: {max_per_hour: -1}",
            "price.max_per_hour: `-1` is not an amount in US dollars: write it like 2.50, with at most 6 decimals",
        ),
        ("price: {currency: eur}", "price.currency: `eur` is not known here: known are usd"),
        ("timeouts: {run: 30}", "timeouts.run: `30` has no unit: write 30s or 30m"),
        (
            "timeouts: {run: !x 30}",
            "can't be read as YAML: timeouts.run: a tag like `!name` means nothing here at line 1 column 17",
        ),
    ] {
        assert_eq!(reason(text), expected, "{text}");
    }
}

#[test]
fn an_account_without_quotes_is_refused() {
    let short = "0x00000000000000000000000000000000000000abcdef0123";
    let large = "0x00000000ffffffffffffffffffffffffffffffff";
    for (account, expected) in [
        ("0xabc", "where.operators.deny[0]: `2748` is not"),
        (short, "where.operators.deny[0]: `737894400291` is not"),
        (
            large,
            "can't be read as YAML: where.operators.deny[0]: a number is too large: if it is a name, write it in quotes",
        ),
    ] {
        let found = yaml(&format!("where: {{operators: {{deny: [{account}]}}}}"));
        assert!(found.starts_with(&format!("task.yaml: {expected}")), "{found}");
    }
}

#[test]
fn wrong_wholes() {
    let long = "x".repeat(limits::ARG_BYTES_MAX + 1);
    for (text, expected) in [
        ("version: 2", "version: is 2, but this program knows version 1 only"),
        (
            "name: My Task",
            "name: `My Task` can't be a name: use 1 to 63 of a-z, 0-9 and `-`, with `-` at neither end",
        ),
        ("image: ''", "image: is empty"),
        ("image: a\nrootfs: b", "rootfs: can't stand beside `image`"),
        ("run: a\ncommand: [b]", "run: can't stand beside `command`: choose one"),
        ("run: ' '", "run: is empty"),
        ("command: ['']", "command[0]: is empty: it names the program"),
        ("command: [a, \"b\\0\"]", "command[1]: has a NUL character"),
        (&format!("run: {long}"), "run: has 131072 bytes, at most 131071 can be"),
        (
            "env: {1A: x}",
            "env.1A: `1A` can't name a variable: use 1 to 128 of A-Z, a-z, 0-9 and `_`, beginning with no digit",
        ),
        (
            "env: [=x]",
            "env.: `` can't name a variable: use 1 to 128 of A-Z, a-z, 0-9 and `_`, beginning with no digit",
        ),
        (
            "secrets: [A=b]",
            "secrets[0]: `A=b` can't name a variable: use 1 to 128 of A-Z, a-z, 0-9 and `_`, beginning with no digit",
        ),
        ("env: {A: b}\nsecrets: [A]", "secrets[0]: `A` stands in `env` too"),
        ("secrets: [A, A]", "secrets[1]: stands there twice"),
        ("files: [{from: '', to: /a}]", "files[0].from: is empty: write `.` for this folder"),
        ("files: [{from: ., to: a}]", "files[0].to: `a` has to begin with `/`"),
        ("files: [{from: ., to: /a/../b}]", "files[0].to: `/a/../b` must not have `..`"),
        (
            "resources: {shm: 1GB}",
            "resources.shm: is more than `resources.memory`, of which it is a part",
        ),
        ("nodes: 0", "nodes: is 0, expected 1 to 1024"),
        (
            "where: {within_ms: 5}",
            "where.within_ms: is about several containers: give `nodes` as well",
        ),
        (
            "where: {distinct_hosts: true}",
            "where.distinct_hosts: is about several containers: give `nodes` as well",
        ),
        ("nodes: 2\nwhere: {within_ms: 60001}", "where.within_ms: is more than 60000 ms"),
        ("timeouts: {run: 0s}", "timeouts.run: is no time at all: leave it out for no limit"),
        ("price: {budget: 0}", "price.budget: is nothing: leave it out for no limit"),
        ("retry: {max: 1001}", "retry.max: is 1001, expected 0 to 1000"),
        ("volumes: [{name: a, path: b}]", "volumes[0].path: `b` has to begin with `/`"),
        ("checkpoint: {path: ../a}", "checkpoint.path: `../a` has to begin with `/`"),
        ("ports: [{port: 0}]", "ports[0].port: is 0, expected 1 to 65535"),
        ("ports: [{port: 1}, {port: 1}]", "ports[1]: stands there twice"),
        ("network: {egress: [pypi.org]}", "network.egress[0]: `pypi.org` is not like pypi.org:443"),
        ("health: {http: health, port: 1}", "health.http: is a path: it begins with `/`"),
        ("scale: {min: 2, max: 1}", "scale.min: is 2, expected 0 to 1"),
        ("stream: {fps: 500}", "stream.fps: is 500, expected 1 to 240"),
        (
            "notify: [{on: [], webhook: ftp://x}]",
            "notify[0].webhook: is a URL: it begins with `https://` or `http://`",
        ),
    ] {
        assert_eq!(reason(text), expected, "{}", &text[..text.len().min(80)]);
    }
}

#[test]
fn wrong_files() {
    for (file, text, expected) in [
        (
            "task",
            "",
            "task: can't tell the format: name the file *.yaml (or .yml), *.toml or *.json",
        ),
        (
            "task.txt",
            "",
            "task.txt: can't tell the format: name the file *.yaml (or .yml), *.toml or *.json",
        ),
        ("a.yaml", "", "a.yaml: is nothing, expected a table with version"),
        ("a.yml", "- 1", "a.yml: is a list, expected a table with version"),
        (
            "a.yaml",
            "run: 'a",
            "a.yaml: can't be read as YAML: found unexpected end of stream at line 1 column 8",
        ),
        (
            "a.yaml",
            "run: a\nrun: b",
            "a.yaml: can't be read as YAML: the key `run` stands there twice",
        ),
        (
            "a.yaml",
            "a: 1\n---\nb: 1",
            "a.yaml: can't be read as YAML: deserializing from YAML containing more than one document",
        ),
        (
            "a.toml",
            "run = 'a'\nrun = 'b'",
            "a.toml: can't be read as TOML: TOML parse error at line 2, column 1",
        ),
        ("a.toml", "name = 2026-01-01T00:00:00Z", "a.toml: name: `2026-01-01T00:00:00Z` can't be"),
        (
            "a.json",
            r#"{"run":"a","run":"b"}"#,
            "a.json: can't be read as JSON: the key `run` stands there twice at line 1",
        ),
        (
            "a.json",
            "{} {}",
            "a.json: can't be read as JSON: trailing characters at line 1 column 4",
        ),
        ("a.json", "{\"nodes\": 1e2}", "a.json: nodes: is the number 100, expected a whole number"),
    ] {
        let found = run(file, text);
        assert!(found.starts_with(expected), "{text}\n{found}");
    }
    let long = run("a.yaml", &"#".repeat(TEXT_BYTES_MAX + 1));
    assert_eq!(long, "a.yaml: has 262145 bytes, more than the 262144 that a task spec may have");
}

#[test]
fn deep_files_are_refused() {
    let nested = format!("{}1{}", "[".repeat(30), "]".repeat(30));
    for (file, text, expected) in [
        (
            "a.yaml",
            &nested,
            "a.yaml: can't be read as YAML: .[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]: it is nested deeper than 16 levels",
        ),
        ("a.json", &nested, "a.json: can't be read as JSON: it is nested deeper than 16 levels"),
        (
            "a.toml",
            &format!("a = {nested}"),
            "a.toml: can't be read as TOML: TOML parse error at line 1, column 20",
        ),
    ] {
        let found = run(file, text);
        assert!(found.starts_with(expected), "{text}\n{found}");
    }
}

#[test]
fn many_brackets_are_refused_before_they_take_long() {
    let found = yaml(&"{a: ".repeat(TEXT_BYTES_MAX / 4));
    let expected = "has more than 2048 opening brackets; put a long script into a file of its own";
    assert_eq!(found, format!("task.yaml: can't be read as YAML: {expected}"));
}

#[test]
fn needs_go_over_the_wire() {
    for text in [FULL, HELLO, YAML] {
        let needs = parse("a.yaml", text).unwrap().needs();
        let bytes = postcard::to_allocvec(&needs).unwrap();
        assert_eq!(postcard::from_bytes::<Needs>(&bytes).unwrap(), needs);
    }
}

#[test]
fn aliases_work_and_bombs_do_not() {
    let spec = parse("a.yaml", "name: &n x\nvolumes: [{name: *n, path: /x}]").unwrap();
    assert_eq!(spec.volumes[0].name, "x");

    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let found = yaml(&bomb);
    assert!(found.starts_with("task.yaml: can't be read as YAML: "), "{found}");

    let text = "x".repeat(100_000);
    let long = format!(
        "env: {{A: &a {text}, {}}}",
        (0..99).map(|i| format!("A{i}: *a, ")).collect::<String>()
    );
    assert!(yaml(&long).contains("its aliases make it too large"), "{}", yaml(&long));
}

#[test]
fn the_schema_describes_every_key() {
    let schema = TaskSpec::schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    let full = parse("task.yaml", FULL).unwrap().to_json();
    for (key, _) in full.as_object().unwrap() {
        assert!(schema["properties"][key]["description"].is_string(), "{key}");
    }
    let memory = &schema["$defs"]["ByteRange"];
    assert_eq!(memory["examples"], serde_json::json!(["64GB..", "512MiB"]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_panics(text: String, near in "[a-z{}\\[\\]:,=&*!|>\"'# \n0-9.-]{0,64}") {
        for file in ["a.yaml", "a.toml", "a.json"] {
            let _ = (parse(file, &text), parse(file, &near));
        }
    }

    #[test]
    fn no_damage_to_a_spec_panics(at in 0..2_000_usize, len in 0..8_usize, with: String) {
        for (file, text) in [("a.yaml", FULL), ("a.yaml", YAML), ("a.toml", TOML), ("a.json", JSON)] {
            let (mut chars, mut damaged) = (text.chars(), String::new());
            damaged.extend(chars.by_ref().take(at));
            damaged.push_str(&with);
            damaged.extend(chars.skip(len));
            if let Ok(spec) = parse(file, &damaged) {
                let again = parse("a.json", &spec.to_json().to_string()).unwrap();
                prop_assert_eq!(again, spec);
            }
        }
    }

    #[test]
    fn values_survive_the_normal_form(
        env in proptest::collection::btree_map("[A-Z_][A-Z0-9_]{0,8}", proptest::option::of("[^\0]{0,20}"), 0..6),
        micros in 1..=Usd::MAX.micros(),
        cpu in 1..CpuRange::MILLI_MAX,
        memory in 1..ByteSize::MAX.bytes(),
        run_seconds in 1..Span::MAX.seconds(),
        command in proptest::collection::vec("[^\0]{1,12}", 0..4),
    ) {
        let value = |value: Option<String>| value.map_or(EnvValue::FromCaller, EnvValue::Set);
        let mut spec = TaskSpec { command, ..TaskSpec::default() };
        spec.env = Env(env.into_iter().map(|(name, text)| (name, value(text))).collect());
        spec.price.max_per_hour = Some(Text(Usd::from_micros(micros)));
        spec.resources.cpu = Some(Text(CpuRange { min_milli: cpu, max_milli: None }));
        spec.resources.memory = Some(Text(ByteRange { min: memory, max: Some(memory) }));
        spec.timeouts.run = Some(Text(Span::from_seconds(run_seconds)));
        let json = spec.to_json();
        prop_assert_eq!(&parse("a.json", &json.to_string()).unwrap(), &spec);
        let yaml = serde_yaml_ng::to_string(&json).unwrap();
        prop_assert_eq!(&parse("a.yaml", &yaml).unwrap(), &spec);
        let toml = toml::to_string(&json).unwrap();
        prop_assert_eq!(&parse("a.toml", &toml).unwrap(), &spec);
    }
}
