//! What the doctor found, as `--format json` prints it. Stable: keys are added, and keep their meaning.

use std::path::PathBuf;

use serde::Serialize;

use super::chain::Certificate;

/// How good it is; the order is that of the exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Requests get through.
    Good,
    /// They do, and yet something is to be known.
    Warning,
    /// They do not.
    Bad,
}

/// All that was looked at.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The worst of all.
    pub verdict: Verdict,
    /// In the order of the file.
    pub targets: Vec<Finding>,
}

/// One address of an endpoint, as one route or several in the same way reach it.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// The first of `routes`; absent where no route leads here.
    pub route: Option<String>,
    /// Every route that reaches it so.
    pub routes: Vec<String>,
    /// The upstream.
    pub upstream: String,
    /// As the file has it.
    pub endpoint: String,
    /// Where it was connected to; absent where the name has no address.
    pub address: Option<String>,
    /// The Host that was sent.
    pub host: String,
    /// The SNI that was sent, if any.
    pub sni: Option<String>,
    /// The names any of which the certificate may have; empty where nothing is verified.
    pub verified: Vec<String>,
    /// How good it is.
    pub verdict: Verdict,
    /// The cause, by the code of the access log; absent where nothing failed.
    pub code: Option<&'static str>,
    /// What happened, in plain words.
    pub what: String,
    /// The particulars.
    pub detail: String,
    /// What is to be known besides.
    pub notes: Vec<Note>,
    /// What was agreed on, where TLS is spoken.
    pub tls: Option<Agreed>,
    /// The steps of the request that `run` would make, and how long each took.
    pub steps: Vec<Step>,
    /// What else was tried, each with one thing changed.
    pub trials: Vec<Trial>,
    /// The certificates that came, the upstream's own first.
    pub chain: Vec<Certificate>,
    /// The CAs whose client certificates the upstream says it accepts.
    pub accepted_issuers: Vec<String>,
    /// What mends it.
    pub fix: Option<Fix>,
}

/// Something to be known.
#[derive(Clone, Debug, Serialize)]
pub struct Note {
    /// How much it matters.
    pub verdict: Verdict,
    /// What it is.
    pub text: String,
}

/// What TLS agreed on.
#[derive(Clone, Debug, Serialize)]
pub struct Agreed {
    /// `TLSv1.3`, say.
    pub version: String,
    /// OpenSSL's name of the cipher.
    pub cipher: String,
    /// The protocol that the upstream chose, if any.
    pub alpn: Option<String>,
}

/// One step of the request.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// `resolve`, `connect`, `handshake` or `request`.
    pub step: &'static str,
    /// Whether it went well.
    pub good: bool,
    /// What came of it.
    pub outcome: String,
    /// How long it took, in milliseconds; absent where that was not measured.
    pub ms: Option<u64>,
}

/// One thing changed, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// What was changed.
    pub tried: String,
    /// Whether it went well.
    pub good: bool,
    /// What came of it.
    pub outcome: String,
}

/// What mends it.
#[derive(Clone, Debug, Serialize)]
pub struct Fix {
    /// What is to be done.
    pub words: Vec<String>,
    /// Whether it was tried, and a request got through.
    pub tried: bool,
    /// The edits, one for each file.
    pub changes: Vec<FileChange>,
    /// Files that the edits name, to be made first.
    pub save: Vec<Save>,
}

/// A file of the configuration, changed.
#[derive(Clone, Debug, Serialize)]
pub struct FileChange {
    /// Which one.
    pub file: PathBuf,
    /// The difference, as `patch` takes it.
    pub diff: String,
    /// The whole of it after the change.
    pub after: String,
}

/// A file to be made: certificates alone, never a key.
#[derive(Clone, Debug, Serialize)]
pub struct Save {
    /// Its name, from the configuration's folder.
    pub file: PathBuf,
    /// What goes into it.
    pub pem: String,
    /// SHA-256 of the certificate in it that is new, in hex.
    pub sha256: String,
}

impl Report {
    /// The exit code: 0 good, 1 warning, 2 bad.
    pub fn exit_code(&self) -> u8 {
        self.verdict as u8
    }
}
