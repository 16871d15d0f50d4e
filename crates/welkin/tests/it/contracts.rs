//! Money in and out, stakes, licences and votes, through the program on the chain of `welkin up`.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{DEADLINE, Network, Output, contains, eventually, files_below, until};

/// Each line of JSON that was printed.
fn lines(output: &Output) -> Vec<Value> {
    let text = output.text();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The last line of JSON.
fn last(output: &Output) -> Value {
    lines(output).pop().unwrap_or_default()
}

fn json(network: &Network, args: &[&str]) -> Value {
    last(&network.run(&[&["--json"], args].concat()).expect(0))
}

/// How much a field says, in wei.
fn wei(value: &Value, field: &str) -> u128 {
    let text = value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"));
    u128::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

const ATH: u128 = 1_000_000_000_000_000_000;

#[test]
fn money_leaves_in_two_steps() {
    let Some(network) = Network::start() else { return };
    network.run(&["withdraw"]).expect(64).says("no withdrawal was announced");
    network.run(&["withdraw", "five"]).expect(64).says("120ATH");
    network.run(&["withdraw", "11"]).expect(78).says("200 ATH are free").says("welkin balance");
    // Shown, and not done.
    network.run(&["withdraw", "5", "--dry-run"]).expect(0).says("nothing was sent");
    let unsigned = json(&network, &["withdraw", "5", "--unsigned"]);
    assert_eq!(unsigned["chainId"], 412_346);
    assert!(unsigned["data"].as_str().unwrap().starts_with("0xe77cfaae"), "{unsigned}");
    let watched = unsigned["from"].as_str().unwrap().to_owned();
    let elsewhere = json(&network, &["withdraw", "5", "--unsigned", "--from", &watched]);
    assert_eq!(elsewhere, unsigned, "no key is needed for that");
    network.run(&["withdraw", "5", "--from", &watched]).expect(64).says("no key to sign with");
    assert_eq!(wei(&json(&network, &["balance"]), "withdrawing_wei"), 0);

    let announced = json(&network, &["withdraw", "5"]);
    assert_eq!(
        (announced["state"].as_str(), wei(&announced, "amount_wei")),
        (Some("announced"), 100 * ATH)
    );
    let again = json(&network, &["withdraw", "5"]);
    assert_eq!(again, announced, "a second run goes on with the first");
    network.run(&["withdraw", "7ATH"]).expect(64).says("100 ATH is announced").says("--cancel");
    let shown = network.run(&["balance"]).expect(0).text();
    assert!(shown.contains("leaving    100 ATH"), "{shown}");
    assert_eq!(json(&network, &["withdraw", "--cancel"])["state"], "called_off");
    assert_eq!(json(&network, &["withdraw", "--cancel"])["state"], "none");

    let wrong = "0x79B016e56d65AB95152fDe69B226fa4fdc9Fe716";
    network.run(&["withdraw", "5", "--to", wrong]).expect(64).says("do not fit the address");
    let done = json(&network, &["withdraw", "all", "--wait"]);
    assert_eq!((done["state"].as_str(), wei(&done, "amount_wei")), (Some("done"), 200 * ATH));
    assert_eq!(wei(&json(&network, &["balance"]), "wallet_wei"), 200 * ATH);
    // And back again.
    network.run(&["fund", "--wallet", "201ATH"]).expect(78).says("which has 200 ATH");
    network.run(&["fund", "--wallet", "150ATH"]).expect(0);
    let view = json(&network, &["balance"]);
    assert_eq!((view["available"].as_u64(), wei(&view, "wallet_wei")), (Some(7_500_000), 50 * ATH));
}

/// The address of a role's key.
fn address(network: &Network, name: &str) -> String {
    json(network, &["key", "show", name])["address"].as_str().unwrap().to_owned()
}

#[test]
fn an_owner_stakes_votes_and_runs_a_licence() {
    let Some(network) = Network::start() else { return };
    let host = address(&network, "host-1");
    network.run(&["fund", "40"]).expect(0);
    json(&network, &["withdraw", "all", "--wait", "--to", &host]);
    let container = json(&network, &["offers"])["container"]["id"].as_str().unwrap().to_owned();
    let short = &container[..16];

    // One command registers what is missing, commits, permits and stakes.
    network.run(&["stake", short]).expect(64).says("--as host");
    network.run(&["stake", "ctr_ffff"]).expect(64).says("welkin offers");
    let planned = network.run(&["stake", short, "--as", "host-1", "--dry-run"]).expect(0);
    assert_eq!(planned.text().lines().count(), 5, "{}", planned.text());
    let output = network.run(&["--json", "stake", short, "--as", "host-1"]).expect(0);
    let sent = lines(&output);
    assert_eq!(sent.len(), 6, "five transactions and how it stands: {sent:?}");
    assert!(sent[..5].iter().all(|done| done["transaction"].is_string()), "{sent:?}");
    assert_eq!(
        (wei(&sent[5], "staked_wei"), wei(&sent[5], "required_wei")),
        (100 * ATH, 100 * ATH)
    );
    network.run(&["stake", short, "--as", "host-1"]).expect(0).says("enough is staked already");
    network.run(&["stake", short, "901", "--as", "host-1"]).expect(78).says("901 ATH");
    network.run(&["stake", short, "20", "--as", "host-1"]).expect(0);
    let row = json(&network, &["stake", "list", "--as", "host-1"]);
    assert_eq!(
        (row["container"].as_str(), wei(&row, "own_wei")),
        (Some(container.as_str()), 120 * ATH)
    );
    network.run(&["unstake", short, "121", "--as", "host-1"]).expect(78).says("120 ATH");
    let exit = json(&network, &["unstake", short, "20", "--as", "host-1"]);
    assert_eq!((exit["kind"].as_str(), wei(&exit, "amount_wei")), (Some("exit"), 20 * ATH));
    network.run(&["unstake", "--withdraw", "--as", "host-1"]).expect(0).says("nothing is due yet");

    // A licence, run by somebody else.
    let buyer = address(&network, "buyer");
    network
        .run(&["licence", "buy", "--as", "host-1", "--max-cost", "99"])
        .expect(78)
        .says("100 ATH");
    network.run(&["licence", "buy", "--count", "2", "--as", "host-1"]).expect(0);
    network.run(&["licence", "delegate", "2", &buyer, "--as", "host-1"]).expect(0);
    network
        .run(&["licence", "delegate", "3", &buyer, "--as", "host-1"])
        .expect(1)
        .says("licence 3");
    let mine = json(&network, &["licence", "list"]);
    assert_eq!((mine["licence"].as_str(), mine["standing"].as_str()), (Some("0x2"), Some("good")));

    // Votes: of what is held and of what is staked.
    let change = ["gov", "propose", "escrow.fee=15%", "--as", "host-1"];
    network.run(&change).expect(77).says("welkin gov delegate");
    network.run(&["gov", "delegate", "self", "--as", "host-1"]).expect(0);
    network
        .run(&["gov", "propose", "escrow.fee=31%", "--as", "host-1"])
        .expect(64)
        .says("0% to 30%");
    network.run(&["gov", "propose", "escrow.fees=1%"]).expect(64).says("gov params");
    network
        .run(&["gov", "propose", "--call", "escrow.setFee(x)"])
        .expect(64)
        .says("setFee(uint16)");
    let proposal = json(&network, &change);
    let id = proposal["id"].as_str().unwrap();
    assert_eq!(
        (proposal["state"].as_str(), &proposal["calls"][0]),
        (Some("pending"), &Value::from("escrow.setFee(1500)"))
    );
    network.run(&["gov", "queue", id]).expect(1).says("the proposal is pending");
    eventually(DEADLINE, "the vote begins", || {
        let vote = network.run(&["gov", "vote", &id[..12], "for", "--as", "host-1"]);
        (vote.code == 0).then_some(())
    });
    let seen = json(&network, &["gov", "show", "last"]);
    assert_eq!(seen["state"], "active");
    // 1000 less 120 for the stake and 200 for licences are held, and 100 are still staked.
    assert_eq!(seen["votes_for"].as_str().unwrap(), (780 * ATH).to_string());
    network
        .run(&["gov", "vote", "last", "against", "--as", "host-1"])
        .expect(1)
        .says("voted already");
    network.run(&["gov", "list"]).expect(0);
    let fee = json(&network, &["gov", "params", "escrow.fee"]);
    assert_eq!((fee["value"].as_str(), fee["bounds"].as_str()), (Some("20%"), Some("0% to 30%")));
}

#[test]
fn the_chain_shows_how_it_stands() {
    let Some(network) = Network::start() else { return };
    let status = json(&network, &["chain", "status"]);
    assert_eq!(status["chain_id"], 412_346);
    assert_eq!(
        (status["ath_price_micros"].as_u64(), status["pending"].as_u64()),
        (Some(50_000), Some(0))
    );
    assert!(status["head_age_seconds"].as_u64().unwrap() < 600, "{status}");
    let verified = json(&network, &["chain", "verify"]);
    assert_eq!((verified["is_right"].as_bool(), verified["wrong"].as_u64()), (Some(true), Some(0)));
    network.run(&["rewards"]).expect(0);
    network.run(&["claim"]).expect(1).says("no epoch counts so far");
    network.run(&["chain", "deploy"]).expect(64).says("WELKIN_CHAIN__RPC");
}

/// Signs what was printed, as a hardware wallet would.
fn sign(network: &Network, name: &str, data: &Value) -> String {
    let key = network.dir().join(name).join("account.key");
    let key = welkin_node::identity::account_key(&key).unwrap();
    let digest = welkin_chain::ops::typed_data::digest(data).unwrap();
    let signed = key.sign(&digest).unwrap();
    let bytes = [&signed.r[..], &signed.s, &[signed.v]].concat();
    alloy_primitives::hex::encode_prefixed(bytes)
}

/// A field of a message, as it is given on the command line.
fn field(data: &Value, name: &str) -> String {
    data["message"][name].as_str().unwrap().to_owned()
}

#[test]
fn a_hardware_wallet_signs_what_is_printed() {
    let Some(network) = Network::start() else { return };
    let host = address(&network, "host-1");
    network.run(&["fund", "40"]).expect(0);
    json(&network, &["withdraw", "all", "--wait", "--to", &host]);
    let away = ["--from", &host];
    // A deposit with a permission that was signed elsewhere.
    network.run(&["fund", "5", "--typed-data"]).expect(64).says("120ATH");
    let data = json(&network, &[&["fund", "50ATH", "--typed-data"], &away[..]].concat());
    assert_eq!(
        (data["primaryType"].as_str(), field(&data, "owner").to_lowercase()),
        (Some("Permit"), host.clone())
    );
    let (signed, deadline) = (sign(&network, "host-1", &data), field(&data, "deadline"));
    let fund = ["fund", "50ATH", "--deadline", &deadline, "--as", "host-1", "--permit"];
    network.run(&[&fund[..], &["0x1234"]].concat()).expect(64).says("130 hexadecimal digits");
    network.run(&[&fund[..], &[&signed]].concat()).expect(0);
    let view = json(&network, &["balance", "--as", "host-1"]);
    assert_eq!(view["available"].as_u64(), Some(2_500_000), "{view}");
    // So for a stake.
    let container = json(&network, &["offers"])["container"]["id"].as_str().unwrap().to_owned();
    let data = json(&network, &[&["stake", &container, "120", "--typed-data"], &away[..]].concat());
    let (signed, deadline) = (sign(&network, "host-1", &data), field(&data, "deadline"));
    let stake = ["stake", &container, "120", "--deadline", &deadline, "--as", "host-1", "--permit"];
    let row = json(&network, &[&stake[..], &[&signed]].concat());
    assert_eq!(wei(&row, "staked_wei"), 120 * ATH);
    // A key of somebody else agrees to order for the account.
    let allow = ["key", "allow", &address(&network, "buyer"), "--allowance", "5"];
    network.run(&[&allow[..], &["--as", "host-1"]].concat()).expect(64).says("--typed-data");
    let data = json(&network, &[&allow[..], &["--typed-data"], &away[..]].concat());
    let (signed, until) = (sign(&network, "buyer", &data), field(&data, "until"));
    let rest = ["--until", &until, "--as", "host-1", "--proof"];
    let wrong = sign(&network, "host-1", &data);
    network.run(&[&allow[..], &rest[..], &[&wrong]].concat()).expect(1).says("the signature");
    network.run(&[&allow[..], &rest[..], &[&signed]].concat()).expect(0);
    network.run(&["key", "revoke", "buyer", "--as", "host-1"]).expect(0);
    // A key that is here agrees at once.
    let here = ["key", "allow", "buyer", "--allowance", "5", "--as", "host-1"];
    network.run(&here).expect(0);
    // A vote, sent by somebody who has none.
    network.run(&["gov", "delegate", "self", "--as", "host-1"]).expect(0);
    network.run(&["gov", "propose", "escrow.fee=10%", "--as", "host-1"]).expect(0);
    let ballot = [&["gov", "vote", "last", "for", "--typed-data"], &away[..]].concat();
    let signed = sign(&network, "host-1", &json(&network, &ballot));
    let cast = ["gov", "vote", "last", "for", "--voter", &host, "--signature", &signed];
    eventually(DEADLINE, "the vote begins", || (network.run(&cast).code == 0).then_some(()));
    let seen = json(&network, &["gov", "show", "last", "--from", &host]);
    assert_eq!(seen["has_voted"], true, "{seen}");
}

/// Keys under passphrases, in folders of the test.
struct Keys<'a> {
    network: &'a Network,
    dir: PathBuf,
}

const PASSPHRASE: &str = "tulip-anchor-violin";

impl<'a> Keys<'a> {
    fn new(network: &'a Network) -> Self {
        let dir = network.place().path().join("keys");
        let keys = Self { network, dir };
        keys.write("right", PASSPHRASE);
        keys.write("wrong", "tulip-anchor-viola");
        keys
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.network.place().path().join(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Runs a command, logging everything, with the passphrase in this file.
    fn run(&self, passphrase: &str, args: &[&str]) -> Output {
        let mut command = self.network.command(&[&["-vv"], args].concat());
        command.env("WELKIN_KEYS", &self.dir);
        if !passphrase.is_empty() {
            let file = self.network.place().path().join(passphrase);
            command.env("WELKIN_KEY_PASSPHRASE_FILE", file);
        }
        crate::support::Proc::spawn(command).finish()
    }
}

#[test]
fn a_key_under_a_passphrase_signs_and_is_never_shown() {
    let Some(network) = Network::start() else { return };
    let keys = Keys::new(&network);
    let buyer = network.dir().join("buyer/account.key");
    let secret = std::fs::read_to_string(&buyer).unwrap();
    let buyer = buyer.to_str().unwrap();
    let mut said = Vec::new();
    let mut run = |passphrase: &str, args: &[&str], code: i32| {
        let output = keys.run(passphrase, args).expect(code);
        said.push(output.text() + &output.stderr);
        output
    };
    run("", &["key", "import", "cold", buyer], 64).says("WELKIN_KEY_PASSPHRASE_FILE");
    run("right", &["key", "import", "cold", buyer], 0);
    run("right", &["key", "import", "cold", buyer], 64).says("already");
    // Nothing secret can be said on the command line, where others could read it.
    for flag in ["--passphrase", "--key", "--private-key", "--secret"] {
        run("right", &["key", "new", "open", flag, "x"], 64).says("unexpected argument");
    }
    run("right", &["key", "new", "../cold"], 64).says("can't be a key's name");
    run("right", &["key", "new", "fresh"], 0);
    run("right", &["--json", "key", "list"], 0);
    // Its address is known without the passphrase; signing needs it.
    run("", &["withdraw", "1", "--as", "cold", "--dry-run"], 0);
    run("", &["withdraw", "1", "--as", "cold"], 64).says("a passphrase is needed");
    run("wrong", &["withdraw", "1", "--as", "cold"], 77).says("wrong passphrase");
    run("right", &["withdraw", "1", "--as", "cold"], 0);
    run("right", &["withdraw", "--cancel", "--as", "cold"], 0);
    run("", &["withdraw", "1", "--as", "warm"], 64).says("no key `warm`");
    run("", &["key", "use", "warm"], 64).says("no key `warm`");
    run("", &["key", "use", "cold"], 0);
    run("right", &["gov", "delegate", "self"], 0);
    run("", &["key", "use", "buyer"], 0);
    // What is exported opens again elsewhere.
    let copy = network.place().path().join("copy.json");
    run("", &["key", "export", "cold", "--out", copy.to_str().unwrap()], 0);
    run("right", &["key", "import", "again", copy.to_str().unwrap()], 0);
    run("wrong", &["key", "import", "other", copy.to_str().unwrap()], 77).says("wrong passphrase");
    let shown = |name| last(&keys.run("", &["--json", "key", "show", name]))["address"].clone();
    assert_eq!(
        (shown("again"), shown("cold")),
        (shown("cold"), Value::from(address(&network, "buyer")))
    );
    // Others must not be able to read what opens it.
    let open = keys.write("open", PASSPHRASE);
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    run("open", &["withdraw", "1", "--as", "cold"], 64).says("chmod 600");

    for secret in [secret.trim(), PASSPHRASE] {
        assert!(said.iter().all(|text| !text.contains(secret)), "a secret was printed");
        let written = files_below(&keys.dir);
        assert_eq!(written.len(), 3, "{written:?}");
        for file in written {
            assert!(!contains(&std::fs::read(&file).unwrap(), secret.as_bytes()), "{file:?}");
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file:?}");
        }
    }
}

#[test]
fn a_passphrase_comes_by_standard_input_too() {
    let Some(network) = Network::start() else { return };
    let keys = Keys::new(&network);
    let mut command = network.command(&["key", "new", "piped", "--passphrase-stdin"]);
    command.env("WELKIN_KEYS", &keys.dir);
    let mut process = crate::support::Proc::spawn(command);
    std::io::Write::write_all(process.stdin(), format!("{PASSPHRASE}\n").as_bytes()).unwrap();
    process.finish().expect(0);
    let args = ["key", "export", "piped"];
    keys.run("", &args).expect(0);
    keys.run("right", &["gov", "delegate", "self", "--as", "piped"]).expect(0);
    until(DEADLINE, "it is listed", || keys.run("", &["key", "list"]).text().contains("piped"));
}

/// A terminal with a person at it.
struct Person {
    master: std::fs::File,
    seen: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    child: std::process::Child,
}

impl Person {
    fn start(mut command: std::process::Command) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let end = || std::fs::OpenOptions::new().read(true).write(true).open(&name).unwrap();
        command.stdin(end()).stderr(end()).stdout(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        // It holds its own ends open no longer than the child does.
        drop(command);
        let master = std::fs::File::from(master);
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let (mut reader, sink) = (master.try_clone().unwrap(), std::sync::Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut part = [0; 1_024];
            while let Ok(len @ 1..) = std::io::Read::read(&mut reader, &mut part) {
                sink.lock().unwrap().extend_from_slice(&part[..len]);
            }
        });
        Self { master, seen, child }
    }

    fn sees(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// Waits for a question and types.
    fn answers(&mut self, question: &str, answer: &str) {
        until(DEADLINE, question, || self.sees().ends_with(question));
        std::io::Write::write_all(&mut self.master, answer.as_bytes()).unwrap();
    }

    /// How it ended, and whether the terminal shows again what is typed.
    fn ends(&mut self) -> (i32, bool) {
        use rustix::termios::{LocalModes, tcgetattr};
        let code = eventually(DEADLINE, "its end", || self.child.try_wait().unwrap());
        let modes = tcgetattr(&self.master).unwrap().local_modes;
        (code.code().unwrap(), modes.contains(LocalModes::ECHO | LocalModes::ISIG))
    }
}

#[test]
fn a_passphrase_is_asked_for_and_not_shown() {
    let place = crate::support::Place::new("");
    let start = |name: &str| {
        let mut command = place.command(&place.path().join("net"), &["key", "new", name]);
        command.env("WELKIN_KEYS", place.path().join("keys"));
        Person::start(command)
    };
    let mut person = start("typed");
    // Asked once the terminal is silent, so that even who types fast is not seen.
    person.answers("a passphrase for it: ", "tulip-anchor\n");
    person.answers("once more: ", "tulip-anchor\n");
    assert_eq!(person.ends(), (0, true));
    assert!(!person.sees().contains("tulip"), "{}", person.sees());
    let mut person = start("other");
    person.answers("a passphrase for it: ", "tulip-anchor\n");
    person.answers("once more: ", "tulip-anchors\n");
    assert_eq!(person.ends(), (64, true));
    let mut person = start("none");
    person.answers("a passphrase for it: ", "\x03");
    assert_eq!(person.ends(), (130, true));
    assert_eq!(files_below(&place.path().join("keys")).len(), 1);
}

#[test]
fn a_person_is_asked_before_money_moves() {
    let Some(network) = Network::start() else { return };
    let standing = || wei(&json(&network, &["balance"]), "withdrawing_wei");
    let mut person = Person::start(network.command(&["withdraw", "5"]));
    person.answers("go on? [Y/n] ", "n\n");
    assert_eq!(person.ends(), (130, true));
    assert!(person.sees().contains("to do: announce the withdrawal of 100 ATH"));
    assert_eq!(standing(), 0);
    let mut person = Person::start(network.command(&["withdraw", "5"]));
    person.answers("go on? [Y/n] ", "y\n");
    assert_eq!(person.ends(), (0, true));
    assert_eq!(standing(), 100 * ATH);
    let mut person = Person::start(network.command(&["withdraw", "--cancel", "-y"]));
    assert_eq!(person.ends(), (0, true));
    assert_eq!(standing(), 0);
}
