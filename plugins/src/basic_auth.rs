//! `basic_auth`: lets pass who knows the password of a user (RFC 7617).
//!
//! ```yaml
//! - basic_auth:
//!     file: users.htpasswd     # lines of `user:hash`, by `htpasswd -B` or argon2; a reload follows it
//!     realm: staff only        # what the browser shows; default vestibule
//!     forward: true            # the password goes to the upstream too; default false
//! ```
//!
//! Hashes are bcrypt (`$2y$…`, `$2b$…`, `$2a$…`) or argon2id (`$argon2id$…`). Verifying one is meant to be slow, so it is done
//! beside the requests, on as many threads as half the cores, and what was right is known for a minute: by a keyed hash,
//! never by the password. Where too many wait for that, one more gets a 503. A user that does not exist takes as long as one
//! that does. The name is `$user` in templates behind this plugin.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::credential::{Place, Several};
use crate::problem::{Path, Problem};
use crate::{Build, Hooks, Plugin, Refusal, RequestInfo, Setting, Verdict, Why};

/// Lets pass who knows a password.
pub struct BasicAuth {
    users: Arc<HashMap<String, Hash>>,
    challenge: HeaderValue,
    forward: bool,
    known: Known,
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Lets pass who knows the password of a user.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicAuthConfig {
    /// Lines of `user:hash`, with hashes of bcrypt or argon2id.
    file: PathBuf,
    /// What a browser shows when it asks for the password. Default `vestibule`.
    #[serde(default = "default_realm")]
    realm: String,
    /// Whether the password goes to the upstream too. Default false.
    #[serde(default)]
    forward: bool,
}

fn default_realm() -> String {
    "vestibule".to_owned()
}

#[derive(Clone)]
enum Hash {
    Bcrypt(String),
    Argon2id(Box<PasswordHash>),
}

/// What was right lately.
struct Known {
    key: PKey<openssl::pkey::Private>,
    until: ArcSwap<HashMap<[u8; 32], Instant>>,
}

const PLACE: Place = Place::Scheme("Basic");
const LONGEST: usize = 1024;
const KNOWN_FOR: Duration = Duration::from_secs(60);
const MOST_KNOWN: usize = 1000;
const MOST_WAITING: usize = 256;

impl Build for BasicAuth {
    type Config = BasicAuthConfig;

    fn build(config: BasicAuthConfig, setting: &Setting<'_>) -> Result<Self, Vec<Problem>> {
        let root = Path::root();
        let mut problems = Vec::new();
        let at = root.key("file");
        let bytes = setting.files.secret(&config.file, &at).map_err(|problem| problems.push(problem));
        let users = bytes.ok().map(|bytes| {
            let name = config.file.display().to_string();
            users(&bytes, &name, &at).unwrap_or_else(|found| {
                problems.extend(found);
                HashMap::new()
            })
        });
        let is_plain =
            |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\".contains(&byte));
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", config.realm);
        let challenge = HeaderValue::from_str(&challenge).ok().filter(|_| is_plain(&config.realm));
        if challenge.is_none() {
            problems.push(Problem::new(
                root.key("realm"),
                "a realm has letters, digits and blanks, and no quotes",
            ));
        }
        let mut key = [0; 32];
        let known = openssl::rand::rand_bytes(&mut key).and_then(|()| PKey::hmac(&key));
        let known = known.map_err(|error| {
            problems.push(Problem::new(root, format!("OpenSSL has no random key: {error}")))
        });
        match (users, challenge, known) {
            (Some(users), Some(challenge), Ok(key)) if problems.is_empty() => Ok(Self {
                users: Arc::new(users),
                challenge,
                forward: config.forward,
                known: Known { key, until: ArcSwap::default() },
                running: Arc::new(Semaphore::new(threads())),
                waiting: AtomicUsize::new(0),
            }),
            _ => Err(problems),
        }
    }
}

/// Half the cores: the other half is for those who pass.
fn threads() -> usize {
    (std::thread::available_parallelism().map_or(2, usize::from) / 2).max(1)
}

/// Lines are told by their number: what stands in them is nobody's business.
fn users(bytes: &[u8], name: &str, at: &Path) -> Result<HashMap<String, Hash>, Vec<Problem>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| vec![Problem::new(at.clone(), format!("`{name}` is no UTF-8"))])?;
    let (mut users, mut problems) = (HashMap::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let (line, number) = (line.trim(), index + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let told = |what: &str| Problem::new(at.clone(), format!("line {number} of `{name}` {what}"));
        let Some((user, hash)) = line.split_once(':').filter(|(user, _)| !user.is_empty()) else {
            problems.push(told("is not `user:hash`"));
            continue;
        };
        let hash = match Hash::parse(hash) {
            Some(hash) => hash,
            None => {
                problems.push(
                    told("has a hash that is neither bcrypt nor argon2id")
                        .hint("write it by `htpasswd -B FILE USER`; older kinds are broken in an afternoon"),
                );
                continue;
            }
        };
        if users.insert(user.to_owned(), hash).is_some() {
            problems.push(told("has a user that an earlier line has already"));
        }
    }
    if users.is_empty() && problems.is_empty() {
        problems.push(Problem::new(at.clone(), format!("`{name}` has no users")));
    }
    if problems.is_empty() { Ok(users) } else { Err(problems) }
}

impl Hash {
    fn parse(text: &str) -> Option<Self> {
        if text.starts_with("$argon2id$") {
            let hash = PasswordHash::new(text).ok()?;
            let is_whole =
                hash.salt.is_some() && hash.hash.is_some() && argon2::Params::try_from(&hash).is_ok();
            return is_whole.then(|| Self::Argon2id(Box::new(hash)));
        }
        text.parse::<bcrypt::HashParts>().ok().map(|_| Self::Bcrypt(text.to_owned()))
    }

    fn is_of(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2id(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
        }
    }
}

impl Plugin for BasicAuth {
    fn hooks(&self) -> Hooks {
        Hooks { wait: true, ..Hooks::default() }
    }

    fn wait<'a>(
        &'a self,
        head: &'a mut RequestHeader,
        info: &'a RequestInfo<'a>,
    ) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
        Box::pin(async move {
            let (user, password) = match credentials(head) {
                Ok(Some(pair)) => pair,
                Ok(None) => return self.refused("there are no credentials"),
                Err(Several) => return self.refused("there are several credentials"),
            };
            match self.is_right(&user, password).await {
                Some(true) => {}
                Some(false) => return self.refused("the user or the password is wrong"),
                None => return busy(),
            }
            if !self.forward {
                PLACE.remove_from(head);
            }
            info.identity.set_user(user);
            Verdict::Continue
        })
    }

    fn authenticates(&self) -> bool {
        true
    }
}

impl BasicAuth {
    /// Nothing where too many ask.
    async fn is_right(&self, user: &str, password: Vec<u8>) -> Option<bool> {
        let mark = self.known.mark(user, &password)?;
        if self.known.has(&mark) {
            return Some(true);
        }
        let _place = Waiting::enter(&self.waiting)?;
        let permit = self.running.clone().acquire_owned().await.ok()?;
        // Others that wait with the same password need not find out again.
        if self.known.has(&mark) {
            return Some(true);
        }
        // A user that does not exist is looked for with the hash of another.
        let (users, name) = (self.users.clone(), user.to_owned());
        let verified = tokio::task::spawn_blocking(move || {
            // Until the work is done, even where the client goes away meanwhile.
            let _permit = permit;
            match users.get(&name) {
                Some(hash) => hash.is_of(&password),
                None => {
                    let _ = users.values().next().map(|hash| hash.is_of(&password));
                    false
                }
            }
        });
        let is_right = verified.await.unwrap_or(false);
        if is_right {
            self.known.add(mark);
        }
        Some(is_right)
    }

    fn refused(&self, detail: &str) -> Verdict {
        Verdict::Refuse(Refusal {
            status: 401,
            headers: vec![(WWW_AUTHENTICATE, self.challenge.clone())],
            why: Why::Unauthenticated,
            detail: format!("basic_auth: {detail}"),
        })
    }
}

fn busy() -> Verdict {
    Verdict::Refuse(Refusal {
        status: 503,
        headers: vec![(RETRY_AFTER, HeaderValue::from_static("1"))],
        why: Why::Unavailable,
        detail: "basic_auth: too many passwords wait to be verified".to_owned(),
    })
}

fn credentials(head: &RequestHeader) -> Result<Option<(String, Vec<u8>)>, Several> {
    let given = PLACE.find(head)?.filter(|given| given.len() <= LONGEST);
    let decoded = given.and_then(|given| STANDARD.decode(given.as_bytes()).ok());
    Ok(decoded.and_then(|decoded| {
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (user, password) = decoded.split_at(colon);
        Some((String::from_utf8(user.to_vec()).ok()?, password[1..].to_vec()))
    }))
}

/// One of those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let entered = Self(count);
        (count.fetch_add(1, Ordering::AcqRel) < MOST_WAITING).then_some(entered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Known {
    fn mark(&self, user: &str, password: &[u8]) -> Option<[u8; 32]> {
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).ok()?;
        // A user's name has no colon.
        let text = [user.as_bytes(), b":", password].concat();
        signer.sign_oneshot_to_vec(&text).ok()?.try_into().ok()
    }

    fn has(&self, mark: &[u8; 32]) -> bool {
        self.until.load().get(mark).is_some_and(|until| Instant::now() < *until)
    }

    fn add(&self, mark: [u8; 32]) {
        let now = Instant::now();
        self.until.rcu(|known| {
            let mut known: HashMap<_, _> = known
                .iter()
                .filter(|(_, until)| now < **until)
                .map(|(mark, until)| (*mark, *until))
                .collect();
            if known.len() >= MOST_KNOWN {
                known.clear();
            }
            known.insert(mark, now + KNOWN_FOR);
            known
        });
    }
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordHasher;

    use super::*;
    use crate::testing::{INFO, ROUTE, get, plugins_of_doc_in, told, yaml};
    use crate::{Files, Identity, Registry};

    struct File(String);

    impl Files for File {
        fn bytes(&self, _: &std::path::Path, _: &Path) -> Result<Vec<u8>, Problem> {
            panic!("a password's hash is a secret")
        }

        fn secret(&self, _: &std::path::Path, _: &Path) -> Result<Vec<u8>, Problem> {
            Ok(self.0.clone().into_bytes())
        }
    }

    fn plugin(file: &str, config: &str) -> Result<Arc<dyn Plugin>, String> {
        let setting = Setting { files: &File(file.to_owned()), ..ROUTE };
        Registry::builtin().build("basic_auth", &yaml(config), &setting).map_err(|problems| told(&problems))
    }

    fn file() -> String {
        let bcrypt = bcrypt::hash("sesame", 4).unwrap().replacen("$2b$", "$2y$", 1);
        let cheap = Argon2::new(
            argon2::Algorithm::Argon2id,
            argon2::Version::V0x13,
            argon2::Params::new(32, 1, 1, None).unwrap(),
        );
        let argon: PasswordHash =
            cheap.hash_password_with_salt(b"p\xc3\xa4ss:word", b"0123456789abcdef").unwrap();
        format!("# staff\n\nalice:{bcrypt}\r\nbob:{argon}\n")
    }

    async fn asked(
        plugin: &Arc<dyn Plugin>,
        given: Option<&str>,
    ) -> (Verdict, Option<String>, RequestHeader) {
        let (mut head, identity) = (get("/"), Identity::new());
        if let Some(given) = given {
            head.insert_header("authorization", format!("Basic {}", STANDARD.encode(given))).unwrap();
        }
        let info = RequestInfo { identity: &identity, ..INFO };
        let verdict = plugin.wait(&mut head, &info).await;
        (verdict, identity.user().map(str::to_owned), head)
    }

    #[test]
    fn the_yaml_of_the_module_doc_loads() {
        let setting = Setting { files: &File(file()), ..ROUTE };
        assert_eq!(plugins_of_doc_in(include_str!("basic_auth.rs"), &setting).len(), 1);
    }

    #[tokio::test]
    async fn who_knows_the_password_passes_under_that_name() {
        let plugin = plugin(&file(), "{ file: f, realm: staff only }").unwrap();
        for _ in 0..2 {
            for (given, user) in [("alice:sesame", "alice"), ("bob:päss:word", "bob")] {
                let (verdict, found, head) = asked(&plugin, Some(given)).await;
                assert!(matches!(verdict, Verdict::Continue), "{given}");
                assert_eq!(found.as_deref(), Some(user));
                assert!(!head.headers.contains_key("authorization"));
            }
        }
        for given in ["alice:", "alice:sesame2", "alice:päss:word", "mallory:sesame", "alice", ":sesame", ""]
        {
            let (verdict, found, _) = asked(&plugin, Some(given)).await;
            let Verdict::Refuse(refusal) = verdict else { panic!("{given}") };
            assert_eq!((refusal.status, found), (401, None), "{given}");
            assert_eq!(refusal.headers[0].1, "Basic realm=\"staff only\", charset=\"UTF-8\"");
            assert!(!refusal.detail.contains("sesame"));
        }
        assert!(matches!(asked(&plugin, None).await.0, Verdict::Refuse(_)));
        let long = format!("alice:{}", "x".repeat(LONGEST));
        assert!(matches!(asked(&plugin, Some(&long)).await.0, Verdict::Refuse(_)));
        let kept = self::plugin(&file(), "{ file: f, forward: true }").unwrap();
        let (_, _, head) = asked(&kept, Some("alice:sesame")).await;
        assert!(head.headers.contains_key("authorization"));
    }

    #[test]
    fn what_is_known_is_bounded_and_belongs_to_its_password() {
        let known = Known { key: PKey::hmac(&[7; 32]).unwrap(), until: ArcSwap::default() };
        let mark = |password: &str| known.mark("alice", password.as_bytes()).unwrap();
        known.add(mark("a"));
        assert!(known.has(&mark("a")) && !known.has(&mark("b")));
        assert!(!known.has(&known.mark("bob", b"a").unwrap()));
        for number in 0..2 * MOST_KNOWN {
            known.add(mark(&number.to_string()));
            assert!(known.until.load().len() <= MOST_KNOWN);
        }
    }

    #[test]
    fn a_file_that_does_not_serve_is_refused_by_its_lines() {
        let bcrypt = bcrypt::hash("x", 4).unwrap();
        for (file, expected) in [
            ("", "file: `f` has no users"),
            ("alice", "file: line 1 of `f` is not `user:hash`"),
            (
                "# x\nalice:$apr1$abc$def",
                "file: line 2 of `f` has a hash that is neither bcrypt nor argon2id",
            ),
            ("alice:{SHA}abc", "neither bcrypt nor argon2id"),
            ("alice:plain", "neither bcrypt nor argon2id"),
            ("alice:$argon2id$v=19$m=32,t=1,p=1$abc", "neither bcrypt nor argon2id"),
            (
                "alice:$argon2i$v=19$m=32,t=1,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
                "neither bcrypt nor argon2id",
            ),
            (&format!("alice:{bcrypt}\nalice:{bcrypt}"), "line 2 of `f` has a user that an earlier line has"),
        ] {
            let refused = plugin(file, "{ file: f }").err().unwrap();
            assert!(refused.contains(expected), "{refused}");
        }
        let refused = plugin(&file(), "{ file: f, realm: 'a\"b' }").err().unwrap();
        assert!(refused.starts_with("realm: a realm has letters"), "{refused}");
    }
}
