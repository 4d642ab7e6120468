//! The file that the secrets of each connection are written to, where a policy asks for it.
//!
//! The format is that of `SSLKEYLOGFILE`, which Wireshark reads.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The file, opened with the first secret.
pub struct KeyLog {
    path: PathBuf,
    file: OnceLock<Option<File>>,
}

impl KeyLog {
    /// Nothing is opened as yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: OnceLock::new() }
    }

    /// Appends a line. One that cannot be written ends no handshake.
    pub fn write(&self, line: &str) {
        let file = self.file.get_or_init(|| match self.open() {
            Ok(file) => Some(file),
            Err(error) => {
                log::warn!("`key_log`: `{}` cannot be opened: {error}", self.path.display());
                None
            }
        });
        // One write for each line: lines of several handshakes never mix in a file opened for appending.
        let _ = file.as_ref().map(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)
    }
}
