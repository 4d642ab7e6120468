//! The files that a configuration names: certificates, keys, pages. Each is read once for each load.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::rc::Rc;

use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use vestibule_plugins::{Path, Problem};

/// Reads files whose paths start at the configuration's own folder.
pub struct Files<'a> {
    base: &'a FilePath,
    read: RefCell<HashMap<PathBuf, Rc<io::Result<Vec<u8>>>>>,
}

/// Larger files are refused: a page or a CA bundle is far smaller.
const LARGEST: u64 = 16 * 1024 * 1024;

impl<'a> Files<'a> {
    /// Nothing is read as yet.
    pub fn new(base: &'a FilePath) -> Self {
        Self { base, read: RefCell::default() }
    }

    /// The bytes of a file; `at` is where the file is named.
    ///
    /// # Errors
    /// It cannot be read, and why.
    pub fn bytes(&self, file: &FilePath, at: &Path) -> Result<Vec<u8>, Problem> {
        let path = self.base.join(file);
        let read = self.read.borrow_mut().entry(path.clone()).or_insert_with(|| Rc::new(read(&path))).clone();
        match &*read {
            Ok(bytes) => Ok(bytes.clone()),
            Err(error) => {
                let problem =
                    Problem::new(at.clone(), format!("`{}` cannot be read: {error}", file.display()));
                Err(match error.kind() {
                    io::ErrorKind::NotFound if file.is_relative() => problem.hint(format!(
                        "relative paths start at the folder of the configuration, so this is `{}`",
                        path.display()
                    )),
                    io::ErrorKind::PermissionDenied => {
                        problem.hint("let the user that the gateway runs as read it")
                    }
                    _ => problem,
                })
            }
        }
    }

    /// The certificates of a PEM file, in its order: at least one.
    ///
    /// # Errors
    /// It cannot be read, or holds none.
    pub fn certificates(&self, file: &FilePath, at: &Path) -> Result<Vec<X509>, Problem> {
        let bytes = self.bytes(file, at)?;
        let wrong = |what: String| {
            Problem::new(at.clone(), format!("`{}` {what}", file.display()))
                .hint("a PEM file holds one or more blocks that begin with `-----BEGIN CERTIFICATE-----`")
        };
        match X509::stack_from_pem(&bytes) {
            Ok(certificates) if certificates.is_empty() => Err(wrong("holds no PEM certificate".into())),
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(wrong(format!("holds a damaged PEM certificate ({})", first_reason(&error)))),
        }
    }

    /// A certificate chain and its key, known to belong together.
    ///
    /// # Errors
    /// Every problem of the two files.
    pub fn key_pair(
        &self,
        cert: &FilePath,
        key: &FilePath,
        at: &Path,
    ) -> Result<(Vec<X509>, PKey<Private>), Vec<Problem>> {
        let chain = self.certificates(cert, &at.key("cert"));
        let key = self.key(key, &at.key("key"));
        let (chain, private) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
        };
        let leaf = chain.first().and_then(|leaf| leaf.public_key().ok());
        if !leaf.is_some_and(|public| public.public_eq(&private)) {
            let first = format!("the key does not belong to the first certificate of `{}`", cert.display());
            return Err(vec![Problem::new(at.key("key"), first).hint(
                "the file's first certificate has to be the key's own, the rest of its chain behind it",
            )]);
        }
        Ok((chain, private))
    }

    fn key(&self, file: &FilePath, at: &Path) -> Result<PKey<Private>, Problem> {
        let bytes = self.bytes(file, at)?;
        let encrypted = bytes.windows(9).any(|window| window == b"ENCRYPTED");
        // An empty pass phrase, since OpenSSL would else ask for one at the terminal.
        PKey::private_key_from_pem_passphrase(&bytes, b"").map_err(|_| {
            let name = file.display();
            if encrypted {
                Problem::new(at.clone(), format!("the private key in `{name}` is encrypted"))
                    .hint(format!("decrypt it: `openssl pkey -in {name} -out plain.key`"))
            } else {
                Problem::new(at.clone(), format!("`{name}` holds no PEM private key"))
                    .hint("such a file begins with `-----BEGIN PRIVATE KEY-----`")
            }
        })
    }
}

fn read(path: &FilePath) -> io::Result<Vec<u8>> {
    let length = std::fs::metadata(path)?.len();
    if length > LARGEST {
        return Err(io::Error::other(format!("it has {length} bytes, more than the {LARGEST} allowed")));
    }
    std::fs::read(path)
}

fn first_reason(error: &openssl::error::ErrorStack) -> &'static str {
    error.errors().first().and_then(openssl::error::Error::reason).unwrap_or("unknown error")
}
