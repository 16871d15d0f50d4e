//! TLS to a real server with a certificate of this test's own.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use welkin_directory::{Dsn, Postgres};

use super::OWNER;
use super::server::{PASSWORD, Server};

/// A server on a port that takes TLS only, its certificate for `localhost`; and the file of the
/// authority that vouches for it.
fn server() -> (Server, u16, tempfile::TempDir) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::start_with(|folder: &Path| {
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            path.display().to_string()
        };
        let certificate = write("server.pem", certificate.pem());
        let key = write("server.key", key.serialize_pem());
        let hba = write(
            "hba",
            "local all all scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n".to_owned(),
        );
        [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={certificate}"),
            format!("ssl_key_file={key}"),
            format!("hba_file={hba}"),
        ]
        .to_vec()
    });
    let roots = tempfile::tempdir().unwrap();
    std::fs::write(roots.path().join("root.pem"), authority.pem()).unwrap();
    (server, port, roots)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the database stage: needs PostgreSQL"]
async fn the_way_to_the_database_is_encrypted_and_its_end_is_known() {
    let (server, port, roots) = server();
    let root = roots.path().join("root.pem");
    let url = |host: &str, query: &str| {
        format!("postgresql://welkin:{PASSWORD}@{host}:{port}/postgres?{query}")
    };
    let open = async |text: String| Postgres::open(Dsn::parse(&text).unwrap(), OWNER).await;
    let verified = format!("sslmode=verify-full&sslrootcert={}", root.display());
    let directory = open(url("localhost", &verified)).await.unwrap();
    assert!(directory.load_standings(1).await.unwrap().is_empty());
    let sessions = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                    WHERE ssl AND application_name = 'welkin-indexer'";
    let encrypted = server.psql(sessions).stdout;
    assert_eq!(String::from_utf8_lossy(&encrypted).trim(), "1");
    // Any certificate will do where that is asked for; the login is bound to it all the same.
    let bound = url("localhost", "sslmode=require&channel_binding=require");
    open(bound).await.unwrap();
    for (text, why) in [
        (url("127.0.0.1", &verified), "certificate not valid for name"),
        (url("localhost", "sslmode=verify-full"), "certificate"),
        (url("127.0.0.1", "sslmode=disable"), "pg_hba.conf"),
    ] {
        let error = open(text).await.unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let told = format!("{error}: {}", source.unwrap_or_default());
        assert!(told.contains(why) && !told.contains(PASSWORD), "{told}");
    }
}
