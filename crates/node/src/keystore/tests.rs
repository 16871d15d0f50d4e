//! Keystores against the definition's vectors, other programs' files, and nonsense.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// The test vectors of the Web3 Secret Storage Definition.
const SCRYPT: &str = r#"{
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "83dbcc02d8ccb40e466191a123791e0e"},
        "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
        "kdf": "scrypt",
        "kdfparams": {
            "dklen": 32, "n": 262144, "p": 8, "r": 1,
            "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19"
        },
        "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3
}"#;
const PBKDF2: &str = r#"{
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {
            "c": 262144, "dklen": 32, "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3
}"#;
const SECRET: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";

fn key() -> AccountKey {
    AccountKey::from_secret(&[7; 32]).unwrap()
}

/// Little work, for tests.
fn sealed(passphrase: &str) -> Keystore {
    Keystore::seal_with(&key(), passphrase, 4).unwrap()
}

#[test]
fn the_definitions_vectors_open() {
    for text in [CAST, PBKDF2] {
        let keystore = Keystore::parse(text).unwrap();
        let secret = keystore.open("testpassword").unwrap().unwrap();
        assert_eq!(hex::encode(*secret), SECRET);
        // Written and read again it is the same.
        assert_eq!(Keystore::parse(&keystore.text()).unwrap().text(), keystore.text());
    }
    assert!(Keystore::parse(CAST).unwrap().open("Testpassword").unwrap().is_none());
}

/// The same secret as `cast wallet import` of Foundry 1.6 wrote it.
const CAST: &str = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"79ec31147e8c6202962aca2e1ae2f825"},"ciphertext":"fb78df18112a86b0f4b532d6746913ae98cd52e5e89f5a571722c999bec4b71b","kdf":"scrypt","kdfparams":{"dklen":32,"n":8192,"p":1,"r":8,"salt":"0db9565be65b8467d7c972d2cfc51dc3e9d4b8645b9a4c73a377d6d25a092a35"},"mac":"89fab0ece849104db1da70c82240f01cedf4c4f77cff06ee64b83b1453623401"},"id":"f30ca160-3c70-4fb2-9682-cd4478658182","version":3}"#;

/// Its numbers break a rule of scrypt's own (RFC 7914: N < 2^(16 r)), which no wallet's files do.
#[test]
fn the_definitions_scrypt_vector_is_refused_with_the_reason() {
    let error = Keystore::parse(SCRYPT).unwrap().open("testpassword").unwrap_err();
    assert!(error.to_string().contains("scrypt work is out of bounds"), "{error}");
}

#[test]
fn a_key_is_sealed_so_that_others_can_open_it() {
    let keystore = Keystore::seal(&key(), "correct horse").unwrap();
    let json: serde_json::Value = serde_json::from_str(&keystore.text()).unwrap();
    assert_eq!(json["version"], 3);
    assert_eq!(json["crypto"]["cipher"], "aes-128-ctr");
    assert_eq!(json["crypto"]["kdf"], "scrypt");
    assert_eq!(json["crypto"]["kdfparams"]["n"], 131_072);
    assert_eq!(json["crypto"]["kdfparams"]["dklen"], 32);
    assert_eq!(json["id"].as_str().unwrap().len(), 36);
    assert_eq!(keystore.address().unwrap().0, *key().id().as_bytes());
    let secret = keystore.open("correct horse").unwrap().unwrap();
    assert_eq!(*secret, [7; 32]);
    assert!(!keystore.text().contains(&hex::encode([7_u8; 32])), "the secret is in the file");
    assert_ne!(sealed("a").crypto.ciphertext, sealed("a").crypto.ciphertext);
}

#[test]
fn what_is_no_keystore_is_refused_with_the_reason() {
    let text = sealed("x").text();
    for (changed, part) in [
        (text.replace("\"version\":3", "\"version\":1"), "of version 1"),
        (text.replace("aes-128-ctr", "aes-128-cbc"), "aes-128-cbc"),
        (text.replace("\"n\":16", "\"n\":17"), "scrypt work"),
        (text.replace("\"n\":16", "\"n\":1073741824"), "scrypt work"),
        (text.replace("\"dklen\":32", "\"dklen\":64"), "key length"),
        (text.replace("scrypt", "argon2"), "can't be read"),
        ("{".to_owned(), "can't be read"),
        (" ".repeat(70_000), "longer"),
    ] {
        let error = Keystore::parse(&changed).and_then(|keystore| keystore.open("x")).unwrap_err();
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[test]
fn a_folder_of_keys_is_private_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::new(dir.path().join("keys"));
    assert_eq!(keys.names().unwrap(), Vec::<String>::new());
    let path = keys.add("cold", &sealed("x")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(keys.dir())), (0o600, 0o700));
    assert!(matches!(keys.add("cold", &sealed("y")), Err(KeystoreError::Exists(_))));
    assert_eq!(keys.open("cold", "x").unwrap().id(), key().id());
    assert!(matches!(keys.open("cold", "y"), Err(KeystoreError::Passphrase(_))));
    assert!(matches!(keys.open("warm", "x"), Err(KeystoreError::Unknown(_))));
    for name in ["", "../cold", "a/b", "a.b", &"a".repeat(65)] {
        assert!(matches!(keys.open(name, "x"), Err(KeystoreError::Name(_))), "{name}");
    }
    assert_eq!(keys.names().unwrap(), ["cold"]);
    assert_eq!(fs::read_dir(keys.dir()).unwrap().count(), 1, "no drafts are left");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}", n in 0..40_u64, iv in "[0-9a-f]{0,40}") {
        let _ = Keystore::parse(&text);
        let changed = sealed("x").text().replace("\"n\":16", &format!("\"n\":{n}"));
        let changed = changed.replace("\"iv\":\"", &format!("\"iv\":\"{iv}"));
        let _ = Keystore::parse(&changed).map(|keystore| keystore.open("x"));
    }
}
