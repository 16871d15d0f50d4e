//! `--json`: whatever prints data prints it for programs, too.

use serde_json::Value;

use crate::support::Network;

#[test]
fn every_command_that_prints_data_has_json() {
    let Some(network) = Network::start() else { return };
    network.run(&["run", "--name", "job", "--", "echo", "hello"]).expect(0);
    let lease = network.leases().last().lease.to_string();
    let receipt = network.leases().receipt_path(network.leases().last().lease);
    let receipt = receipt.to_str().unwrap();
    for args in [
        &["ps", "--all"][..],
        &["show", &lease],
        &["logs", &lease],
        &["offers"],
        &["indexers"],
        &["plan", "--cpu", "1", "--", "true"],
        &["balance"],
        &["fund", "1"],
        &["receipts"],
        &["receipts", "verify", receipt],
        &["doctor"],
        &["config"],
        &["schema", "task"],
        &["chain", "status"],
        &["chain", "verify"],
        &["gov", "params"],
        &["licence", "list"],
        &["rewards"],
        &["key", "list"],
        &["withdraw", "1", "--dry-run"],
        &["run", "--detach", "--", "true"],
    ] {
        let output = network.run(&[&["--json"], args].concat()).expect(0);
        let text = output.text();
        assert!(!text.trim().is_empty(), "{args:?} printed nothing");
        let values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        for value in values {
            value.unwrap_or_else(|error| panic!("{args:?}: {error} in:\n{text}"));
        }
    }
    // An error is data, too.
    let output = network.run(&["--json", "show", "lse_00000000"]);
    assert_ne!(output.code, 0);
    let error: Value = serde_json::from_str(output.stderr.trim()).unwrap();
    assert!(error.to_string().contains("lse_00000000"), "{error}");
}
