//! `vestibule demo`: the gateway in front of an embedded TLS origin that refuses a handshake without the right SNI and
//! without a client certificate. Certificates are made on the spot and gone at the end.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Response, header};
use openssl::pkey::PKey;
use openssl::ssl::{NameType, SniError, SslAcceptor, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use pingora_core::apps::ServerApp;
use pingora_core::apps::http_app::{HttpServer, ServeHttp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::tls::server::handshake;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::run::{Signals, runtime};
use crate::reload::{Keeper, Watching};
use crate::snapshot::{self, Workshop};

/// The one name that the origin serves.
const NAME: &str = "shop.internal";

/// Serves until SIGTERM or SIGINT.
pub fn demo(port: u16, workshop: Arc<Workshop>) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("vestibule-demo-").tempdir()?;
    let certificates = Certificates::make().context("the certificates cannot be made")?;
    runtime(2)?.block_on(async {
        let mut signals = Signals::new()?;
        let origin = TcpListener::bind(("127.0.0.1", 0)).await?;
        let file = write(folder.path(), port, origin.local_addr()?, &certificates)?;
        tokio::spawn(serve(origin, acceptor(&certificates)?));
        let (snapshot, sources) = snapshot::load_noting(&file, &workshop);
        let first = (snapshot?, sources);
        let keeper = Keeper::start(file.clone(), first, workshop, Watching::AsFileSays).await;
        let keeper = keeper
            .map_err(|error| anyhow!("{error}\nhint: choose another port: `vestibule demo --port 8081`"))?;
        let control = keeper.control();
        let (stop, stopped) = oneshot::channel();
        let keeping = tokio::spawn(keeper.run(stopped));
        super::print(&guide(port, &file))?;
        signals.stop(&control).await;
        let _ = stop.send(());
        keeping.await?.drain().await;
        Ok(())
    })
}

fn guide(port: u16, file: &Path) -> String {
    format!(
        "
The gateway listens on 127.0.0.1:{port}. Behind it is a TLS origin that ends every handshake without the SNI
`{NAME}` or without a client certificate. The configuration is {file}.

  curl -i http://127.0.0.1:{port}/hello      works: Host, SNI and verified name are `{NAME}`, a client certificate is shown
  curl -i http://127.0.0.1:{port}/no-sni     fails: its route says `sni: none`; the line in this window says what mends it
  curl -i http://127.0.0.1:{port}/api/v1/x   works: `strip_prefix: /api`, so the origin sees /v1/x

  {program} doctor -c {file}
                                             says why /no-sni fails, and prints the change that mends it: make it in
                                             that file and ask again, since a changed file is in force at once

Ctrl-C ends it.",
        program = std::env::args().next().unwrap_or_else(|| "vestibule".to_owned()),
        file = file.display(),
    )
}

fn write(
    folder: &Path,
    port: u16,
    origin: SocketAddr,
    certificates: &Certificates,
) -> anyhow::Result<std::path::PathBuf> {
    std::fs::write(folder.join("ca.crt"), &certificates.ca)?;
    std::fs::write(folder.join("gateway.crt"), &certificates.client.0)?;
    std::fs::write(folder.join("gateway.key"), &certificates.client.1)?;
    let file = folder.join("gateway.yaml");
    std::fs::write(&file, yaml(port, origin))?;
    Ok(file)
}

fn yaml(port: u16, origin: SocketAddr) -> String {
    format!(
        "version: 1
access_log: {{ format: text }}
listeners:
  web: {{ address: \"127.0.0.1:{port}\" }}
upstreams:
  shop:
    endpoints: [\"{origin}\"]
    host: {NAME}                    # the Host that is sent; it decides the SNI, and the SNI the verified name
    tls:
      verify: {{ ca: ca.crt }}
      client_certificate: {{ cert: gateway.crt, key: gateway.key }}
routes:
  - name: hello
    match: {{ paths: [/hello] }}
    upstream: shop
  - name: no-sni
    match: {{ paths: [/no-sni] }}
    upstream: shop
    tls: {{ sni: none, verify: {{ name: {NAME} }} }}
  - name: api
    match: {{ paths: [/api] }}
    upstream: shop
    plugins:
      - path_rewrite: {{ strip_prefix: /api }}
"
    )
}

/// PEM texts.
struct Certificates {
    ca: String,
    server: (String, String),
    client: (String, String),
}

impl Certificates {
    fn make() -> Result<Self, rcgen::Error> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "vestibule demo CA");
        let ca = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?;
        let leaf = |name: &str, purpose: ExtendedKeyUsagePurpose| {
            let key = KeyPair::generate()?;
            let mut parameters = CertificateParams::new(vec![name.to_owned()])?;
            parameters.distinguished_name.push(DnType::CommonName, name);
            parameters.extended_key_usages = vec![purpose];
            Ok::<_, rcgen::Error>((parameters.signed_by(&key, &ca)?.pem(), key.serialize_pem()))
        };
        Ok(Self {
            server: leaf(NAME, ExtendedKeyUsagePurpose::ServerAuth)?,
            client: leaf("vestibule-demo-gateway", ExtendedKeyUsagePurpose::ClientAuth)?,
            ca: ca.pem(),
        })
    }
}

fn acceptor(certificates: &Certificates) -> Result<SslAcceptor, openssl::error::ErrorStack> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_certificate(X509::from_pem(certificates.server.0.as_bytes())?.as_ref())?;
    builder.set_private_key(PKey::private_key_from_pem(certificates.server.1.as_bytes())?.as_ref())?;
    let mut store = X509StoreBuilder::new()?;
    store.add_cert(X509::from_pem(certificates.ca.as_bytes())?)?;
    builder.set_verify_cert_store(store.build())?;
    builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    builder.set_session_id_context(b"demo")?;
    // Without an SNI the callback is called too; its error is the alert unrecognized_name.
    builder.set_servername_callback(|ssl, _| match ssl.servername(NameType::HOST_NAME) {
        Some(NAME) => Ok(()),
        _ => Err(SniError::ALERT_FATAL),
    });
    Ok(builder.build())
}

async fn serve(socket: TcpListener, acceptor: SslAcceptor) {
    let acceptor = Arc::new(acceptor);
    let app = Arc::new(HttpServer::new_app(Echo));
    let (_never, watch) = watch::channel(false);
    while let Ok((stream, _)) = socket.accept().await {
        // A head and a body in two packets would wait for each other's acknowledgement.
        let _ = stream.set_nodelay(true);
        let (acceptor, app, watch) = (acceptor.clone(), app.clone(), watch.clone());
        tokio::spawn(async move {
            if let Ok(stream) = handshake(&acceptor, Stream::from(stream)).await {
                app.process_new(Box::new(stream), &watch).await;
            }
        });
    }
}

/// Answers with what it was asked.
struct Echo;

#[async_trait]
impl ServeHttp for Echo {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let field = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
        let body = format!(
            "hello from the origin\n  it was asked for   {} {}\n  Host               {}\n  X-Forwarded-For    {}\n  X-Forwarded-Host   {}\n",
            head.method,
            head.uri,
            field("host"),
            field("x-forwarded-for"),
            field("x-forwarded-host"),
        );
        let body = Bytes::from(body);
        Response::builder()
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .header(header::CONTENT_LENGTH, body.len())
            .body(body.to_vec())
            .unwrap_or_default()
    }
}
