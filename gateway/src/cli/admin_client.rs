//! Asks the admin endpoint of a gateway that runs: GET and POST of JSON, and problems (RFC 9457) in plain words.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Where the admin endpoint is, unless the file says otherwise.
const ADDRESS: &str = "http://127.0.0.1:9901";

/// So long may connecting take.
const CONNECT: Duration = Duration::from_secs(5);
/// So long may an answer take: a reload waits for certificates to be read and addresses to be bound.
const ANSWER: Duration = Duration::from_secs(60);
/// No more of an answer is read.
const MOST_BODY: usize = 64 << 20;

/// Which gateway is asked.
#[derive(clap::Args)]
pub struct AdminArguments {
    /// The admin endpoint of the gateway that runs.
    #[arg(long, value_name = "URL", default_value = ADDRESS)]
    admin: String,
    /// The file with the token that the admin endpoint asks for.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl AdminArguments {
    /// A client of its endpoint.
    ///
    /// # Errors
    /// As for `AdminClient::new`.
    pub fn client(&self) -> anyhow::Result<AdminClient> {
        AdminClient::new(&self.admin, self.token_file.as_deref())
    }
}

/// The admin endpoint of one gateway.
pub struct AdminClient {
    authority: String,
    token: Option<String>,
}

/// What it answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The JSON; null where there is none.
    pub body: Value,
}

impl AdminClient {
    /// The endpoint at `http://host:port`, and the file with the token that it asks for.
    ///
    /// # Errors
    /// The URL is another one, or the file cannot be read.
    pub fn new(url: &str, token_file: Option<&Path>) -> anyhow::Result<Self> {
        let wrong = || {
            anyhow!(
                "`{url}` is not an admin endpoint's address\nhint: write `http://HOST:PORT`, as in `{ADDRESS}`"
            )
        };
        let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        let authority: http::uri::Authority = authority.parse().ok().ok_or_else(wrong)?;
        if authority.port_u16().is_none() || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let token = token_file.map(|file| {
            fs::read_to_string(file)
                .with_context(|| format!("the token in `{}` cannot be read", file.display()))
        });
        let token = token.transpose()?.map(|token| token.trim_ascii_end().to_owned());
        Ok(Self { authority: authority.to_string(), token })
    }

    /// Asks for a page.
    ///
    /// # Errors
    /// There is no answer. An answer that refuses is none: see `Answer::accepted`.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Method::GET, path, None).await
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// As `get`.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.ask(Method::POST, path, Some(body)).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let Self { authority, token } = self;
        let connecting = timeout(CONNECT, TcpStream::connect(authority.as_str())).await;
        let stream = match connecting {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => bail!(
                "nobody answers at {authority}: {}\nhint: is the gateway running, and has its file an `admin:` section \
                 with this address?",
                error.to_string().to_lowercase()
            ),
            Err(_) => bail!(
                "nobody answers at {authority}: no connection after {CONNECT:?}\nhint: name the gateway's admin endpoint \
                 by `--admin http://HOST:PORT`"
            ),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        // Not with its cause, which would tell the token's bytes.
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|_| anyhow!("the token holds what no header can carry"))?;
        match timeout(ANSWER, exchange(stream, request)).await {
            Ok(answer) => answer
                .map_err(|error| anyhow!("{authority} does not answer as an admin endpoint does: {error}")),
            Err(_) => bail!("{authority} has not answered {path} after {ANSWER:?}"),
        }
    }
}

impl Answer {
    /// The body of an answer that is no refusal.
    ///
    /// # Errors
    /// What the endpoint says of the problem.
    pub fn accepted(self) -> anyhow::Result<Value> {
        let Self { status, body } = self;
        match status {
            200..300 => Ok(body),
            401 => bail!(
                "the admin endpoint refuses this without its token ({status})\nhint: name the file that holds it: `--token-file FILE`"
            ),
            _ => {
                let told = ["detail", "title"].iter().find_map(|key| body.get(key)?.as_str());
                match told {
                    Some(told) => bail!("{told}"),
                    None => bail!("the admin endpoint answers with {status}"),
                }
            }
        }
    }
}

type Problem = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(stream: TcpStream, request: Request<Full<Bytes>>) -> Result<Answer, Problem> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async move {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MOST_BODY).collect().await?.to_bytes();
        // A page that is no JSON tells its status nevertheless.
        Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() })
    };
    tokio::pin!(asking, connection);
    tokio::select! {
        answer = &mut asking => answer,
        // It ends with the answer's last byte, or breaks: either way the exchange knows.
        ended = &mut connection => match asking.await {
            Err(error) => Err(ended.err().map_or(error, Into::into)),
            answer => answer,
        },
    }
}
