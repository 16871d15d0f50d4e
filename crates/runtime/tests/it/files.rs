//! Files go in and out as tar streams, and never around the sandbox.

use std::fs::File;
use std::io::{Read, Seek};

use tar::{Builder, EntryType, Header};
use welkin_runtime::{Command, FailureCode, FilesIn, StartOptions};

use crate::support::{Streams, World, with_root};

fn archive(files: &[(&str, &str)]) -> File {
    let mut tar = Builder::new(tempfile::tempfile().unwrap());
    for (name, text) in files {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let mut file = tar.into_inner().unwrap();
    file.rewind().unwrap();
    file
}

fn texts(mut file: File) -> Vec<(String, String)> {
    file.rewind().unwrap();
    let mut found = Vec::new();
    for entry in tar::Archive::new(file).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        found.push((entry.path().unwrap().to_str().unwrap().to_owned(), text));
    }
    found
}

#[test]
fn files_go_in_before_the_command_and_come_out_after() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let script = "#!/bin/sh\ncat data/in > out/result\n";
        let stream = archive(&[("run", script), ("data/in", "42"), ("out/other", "x")]);
        let (stdio, streams) = Streams::new();
        let options = StartOptions {
            files: Some(FilesIn { stream: stream.into(), dir: String::new() }),
            ..StartOptions::new(stdio)
        };
        world.runtime.start(id, Command::new(["./run"]), options).await.unwrap();
        let exit = world.runtime.wait(id).await.unwrap();
        let output = streams.finish(exit).await;
        assert!(exit.is_success(), "{output:?}");
        let file = tempfile::tempfile().unwrap();
        let copy = file.try_clone().unwrap();
        world.runtime.files_get(id, "out", copy.into()).await.unwrap();
        let expected = [("out", ""), ("out/other", "x"), ("out/result", "42")];
        assert_eq!(texts(file), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    });
}

#[test]
fn files_go_in_and_out_while_it_runs() {
    with_root(|| async {
        let world = World::new().await;
        let id = world.prepare().await;
        let _streams = world.start_sh(id, "exec sleep 1000").await;
        let stream = archive(&[("a/b", "hello")]);
        world.runtime.files_put(id, "/work/in", stream.into()).await.unwrap();
        assert_eq!(world.exec_sh(id, "cat /work/in/a/b").await.stdout, "hello");
        let file = tempfile::tempfile().unwrap();
        let copy = file.try_clone().unwrap();
        world.runtime.files_get(id, "in/a/b", copy.into()).await.unwrap();
        assert_eq!(texts(file), [("b".to_owned(), "hello".to_owned())]);

        let missing = tempfile::tempfile().unwrap();
        let error = world.runtime.files_get(id, "nowhere", missing.into()).await.unwrap_err();
        let failure = error.failure().unwrap();
        assert_eq!(failure.code, FailureCode::Inside);
        assert!(failure.text.contains("/work/nowhere"), "{failure}");
        let stream = archive(&[("x", "y")]);
        let error = world.runtime.files_put(id, "/usr/x", stream.into()).await.unwrap_err();
        assert_eq!(error.failure().unwrap().code, FailureCode::Inside);
    });
}

#[test]
fn links_lead_nowhere_else() {
    with_root(|| async {
        let world = World::new().await;
        let secret = tempfile::Builder::new().prefix("welkin-secret").tempfile_in("/tmp").unwrap();
        std::fs::write(secret.path(), "secret of the host").unwrap();
        let id = world.prepare().await;
        let script = format!(
            "ln -s {} /work/direct; ln -s /proc/1/root/etc/shadow /work/shadow; \
             ln -s / /work/root; ln -s /usr/bin /work/bin; touch /work/done; exec sleep 1000",
            secret.path().display()
        );
        let _streams = world.start_sh(id, &script).await;
        world.exec_sh(id, "until [ -e /work/done ]; do :; done").await;
        let relative = secret.path().strip_prefix("/").unwrap().to_str().unwrap();
        for path in ["direct", "shadow", &format!("root/{relative}"), "../../../../etc/shadow"] {
            let file = tempfile::tempfile().unwrap();
            let copy = file.try_clone().unwrap();
            assert!(world.runtime.files_get(id, path, copy.into()).await.is_err(), "{path}");
        }

        let mut tar = Builder::new(tempfile::tempfile().unwrap());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "escape", "/usr/bin").unwrap();
        let mut header = Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o755);
        tar.append_data(&mut header, "escape/evil", &b"evil"[..]).unwrap();
        let mut file = tar.into_inner().unwrap();
        file.rewind().unwrap();
        assert!(world.runtime.files_put(id, "in", file.into()).await.is_err());
        assert!(!std::path::Path::new("/usr/bin/evil").exists());
    });
}
