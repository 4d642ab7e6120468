//! The files that a configuration names: certificates, keys, pages. Each is read once for each load, and noted
//! among its sources.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::rc::Rc;

use openssl::pkey::{PKey, Private};
use openssl::sha::{Sha256, sha256};
use openssl::x509::{X509, X509Crl};
use vestibule_plugins::{Path, Problem};

use super::sources::{Names, Sources};
use crate::config::KeyPairConfig;
use crate::config::load::short;
use crate::upstream::Crl;

/// Reads files whose paths start at the configuration's own folder.
pub struct Files<'a> {
    base: &'a FilePath,
    read: RefCell<HashMap<PathBuf, Rc<io::Result<Vec<u8>>>>>,
    sources: RefCell<Sources>,
    /// What was read, by the names that the configuration has for it.
    contents: RefCell<BTreeMap<PathBuf, [u8; 32]>>,
    /// What no hash may tell of that is shown: short secrets, and what the gateway writes itself.
    unhashed: RefCell<HashSet<PathBuf>>,
    written: RefCell<HashSet<PathBuf>>,
}

/// Larger files are refused: a page or a CA bundle is far smaller.
const LARGEST: u64 = 16 * 1024 * 1024;

impl<'a> Files<'a> {
    /// Nothing is read as yet.
    pub fn new(base: &'a FilePath) -> Self {
        Self {
            base,
            read: RefCell::default(),
            sources: RefCell::default(),
            contents: RefCell::default(),
            unhashed: RefCell::default(),
            written: RefCell::default(),
        }
    }

    /// The bytes of a file; `at` is where the file is named.
    ///
    /// # Errors
    /// It cannot be read, and why.
    pub fn bytes(&self, file: &FilePath, at: &Path) -> Result<Vec<u8>, Problem> {
        let path = self.base.join(file);
        let read = self.read.borrow_mut().entry(path.clone()).or_insert_with(|| self.read(&path)).clone();
        match &*read {
            Ok(bytes) => {
                self.contents.borrow_mut().entry(file.to_owned()).or_insert_with(|| sha256(bytes));
                Ok(bytes.clone())
            }
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

    /// The bytes of a password or a token, which could be guessed from a hash that is shown.
    ///
    /// # Errors
    /// It cannot be read, and why.
    pub fn secret(&self, file: &FilePath, at: &Path) -> Result<Vec<u8>, Problem> {
        self.unhashed.borrow_mut().insert(self.base.join(file));
        self.bytes(file, at)
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

    /// The certificates of a PEM file, or of every file of a folder, in the order of their names. A folder's files
    /// without a certificate, and those whose names begin with a dot, are passed over: a mounted Secret has both.
    ///
    /// # Errors
    /// Nothing can be read, or there is no certificate at all.
    pub fn authorities(&self, file: &FilePath, at: &Path) -> Result<Vec<X509>, Problem> {
        let folder = self.base.join(file);
        self.sources.borrow_mut().note(&folder, Names::Visible);
        if !folder.is_dir() {
            return self.certificates(file, at);
        }
        let name = file.display();
        let names = Names::Visible
            .list(&folder)
            .map_err(|error| Problem::new(at.clone(), format!("`{name}` cannot be read: {error}")))?;
        let mut certificates = Vec::new();
        for name in names {
            let file = file.join(name);
            if has(&self.bytes(&file, at)?, "-----BEGIN CERTIFICATE-----") {
                certificates.extend(self.certificates(&file, at)?);
            }
        }
        match certificates.is_empty() {
            true => Err(Problem::new(
                at.clone(),
                format!("no file of the folder `{name}` holds a PEM certificate"),
            )
            .hint("such a file holds one or more blocks that begin with `-----BEGIN CERTIFICATE-----`")),
            false => Ok(certificates),
        }
    }

    /// The revocation lists of a PEM file: at least one.
    ///
    /// # Errors
    /// It cannot be read, or holds none.
    pub fn crls(&self, file: &FilePath, at: &Path) -> Result<Vec<Crl>, Problem> {
        const BEGIN: &str = "-----BEGIN X509 CRL-----";
        let bytes = self.bytes(file, at)?;
        let wrong = |what: &str| {
            Problem::new(at.clone(), format!("`{}` {what}", file.display())).hint(
                "a PEM file of revocation lists holds blocks that begin with `-----BEGIN X509 CRL-----`",
            )
        };
        let text = String::from_utf8_lossy(&bytes);
        let blocks = text
            .match_indices(BEGIN)
            .map(|(start, _)| Crl::new(&*X509Crl::from_pem(&text.as_bytes()[start..])?));
        let crls = blocks.collect::<Result<Vec<_>, _>>();
        let crls = crls.map_err(|error| {
            wrong(&format!("holds a damaged PEM revocation list ({})", first_reason(&error)))
        })?;
        match crls.is_empty() {
            true => Err(wrong("holds no PEM revocation list")),
            false => Ok(crls),
        }
    }

    /// The path of a file that the gateway is to write.
    ///
    /// # Errors
    /// Its folder is not there.
    pub fn to_be_written(&self, file: &FilePath, at: &Path) -> Result<PathBuf, Problem> {
        let path = self.base.join(file);
        match path.parent().is_some_and(FilePath::is_dir) && !path.is_dir() {
            true => {
                self.will_write(&path);
                Ok(path)
            }
            false => Err(Problem::new(at.clone(), format!("`{}` cannot be written", file.display()))
                .hint("name a file in a folder that is there")),
        }
    }

    /// Tells that the gateway writes this file: then it is no source, even where it lies in a folder of CAs.
    pub fn will_write(&self, path: &FilePath) {
        self.unhashed.borrow_mut().insert(path.to_owned());
        self.written.borrow_mut().insert(path.to_owned());
    }

    /// The hash of a configuration whose own files have the hash `document`: that one where it names no file, else one
    /// over what was read as well. A password or a token has no part in it. It is the same in whatever order the files
    /// were read, since commands have orders of their own.
    pub fn hash(&self, document: &str) -> String {
        let (contents, unhashed) = (self.contents.borrow(), self.unhashed.borrow());
        let mut hashed =
            contents.iter().filter(|(file, _)| !unhashed.contains(&self.base.join(file))).peekable();
        if hashed.peek().is_none() {
            return document.to_owned();
        }
        let mut hash = Sha256::new();
        hash.update(document.as_bytes());
        hashed.for_each(|(_, content)| hash.update(content));
        short(&hash.finish())
    }

    /// What was looked at.
    pub fn into_sources(self) -> Sources {
        let (mut sources, written) = (self.sources.into_inner(), self.written.into_inner());
        sources.forget(|path| written.contains(path));
        sources
    }

    fn read(&self, path: &FilePath) -> Rc<io::Result<Vec<u8>>> {
        let mut sources = self.sources.borrow_mut();
        sources.note(path, Names::None);
        let read = read(path);
        if let Ok(bytes) = &read {
            sources.has_read(path, bytes);
        }
        Rc::new(read)
    }

    /// A certificate chain and its key, known to belong together.
    ///
    /// # Errors
    /// Every problem of the files.
    pub fn key_pair(
        &self,
        pair: &KeyPairConfig,
        at: &Path,
    ) -> Result<(Vec<X509>, PKey<Private>), Vec<Problem>> {
        let KeyPairConfig { cert, key, password_file } = pair;
        let chain = self.certificates(cert, &at.key("cert"));
        let password = password_file.as_deref().map(|file| (file, at.key("password_file")));
        let key = self.key(key, password, &at.key("key"));
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

    fn key(
        &self,
        file: &FilePath,
        password: Option<(&FilePath, Path)>,
        at: &Path,
    ) -> Result<PKey<Private>, Problem> {
        let bytes = self.bytes(file, at)?;
        let name = file.display();
        let encrypted = has(&bytes, "ENCRYPTED");
        let password = match password {
            Some((_, at)) if !encrypted => {
                return Err(Problem::new(at, format!("the private key in `{name}` is not encrypted"))
                    .hint("leave `password_file` out"));
            }
            Some((file, at)) => Some((first_line(&self.secret(file, &at)?), file.display(), at)),
            None => None,
        };
        // An empty pass phrase where there is none, since OpenSSL would else ask for one at the terminal.
        let phrase = password.as_ref().map(|(phrase, ..)| phrase.as_slice()).unwrap_or_default();
        PKey::private_key_from_pem_passphrase(&bytes, phrase).map_err(|_| match password {
            Some((_, file, at)) => {
                Problem::new(at, format!("the password in `{file}` does not open `{name}`"))
                    .hint("the first line of the file is the password, all of it")
            }
            None if encrypted => {
                Problem::new(at.clone(), format!("the private key in `{name}` is encrypted")).hint(format!(
                    "write its password to a file and add `password_file: FILE`, or decrypt it: \
                      `openssl pkey -in {name} -out plain.key`"
                ))
            }
            None => Problem::new(at.clone(), format!("`{name}` holds no PEM private key"))
                .hint("such a file begins with `-----BEGIN PRIVATE KEY-----`"),
        })
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn first_line(bytes: &[u8]) -> Vec<u8> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line).to_vec()
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
