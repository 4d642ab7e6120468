//! The PEM files that a fix may name: those of the configuration, and what lies in the same folders.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use openssl::pkey::PKey;
use openssl::x509::{X509, X509ExtendedKeyUsage, X509Ref};

use crate::config::{
    CaConfig, ClientCertificateConfig, Config, Document, KeyPairConfig, TlsConfig, VerifyConfig,
};
use crate::snapshot::files::Files;
use crate::upstream::{ClientIdentity, is_ca};

/// Certificates and keys that are at hand.
#[derive(Default)]
pub struct Known {
    /// Files with certificates, those that the configuration names as `ca` first.
    pub authorities: Vec<Authority>,
    /// Certificates with their keys, those that upstreams and routes show first.
    pub pairs: Vec<Pair>,
    /// Where a new file would lie best, as the configuration would name it.
    pub folder: PathBuf,
    base: PathBuf,
}

/// A file that may be named as `ca`.
pub struct Authority {
    /// As the configuration names it, or would.
    pub file: PathBuf,
    /// What it holds.
    pub certificates: Vec<X509>,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Pair {
    /// Their files, as the configuration names them, or would.
    pub files: KeyPairConfig,
    /// What they hold.
    pub identity: ClientIdentity,
}

/// More files of one folder are not read.
const MOST_FILES: usize = 256;
/// Nor are larger ones: a bundle of CAs is smaller.
const MOST_BYTES: u64 = 1 << 20;

impl Known {
    /// Reads what the configuration names and what lies beside it; what cannot be read is passed over.
    pub fn of(config: &Config, document: &Document) -> Self {
        let base = document.base().to_owned();
        let named = Named::of(config);
        let mut known = Self { base: base.clone(), ..Self::default() };
        let files = Files::new(&base);
        let root = vestibule_plugins::Path::root();
        for file in &named.authorities {
            if let Ok(certificates) = files.authorities(file, &root) {
                known.authorities.push(Authority { file: file.clone(), certificates });
            }
        }
        for pair in &named.pairs {
            if let Ok((chain, key)) = files.key_pair(pair, &root) {
                known.pairs.push(Pair { files: pair.clone(), identity: ClientIdentity { chain, key } });
            }
        }
        let folders: BTreeSet<PathBuf> = named.files.iter().map(|file| folder_of(&base.join(file))).collect();
        known.folder = named
            .files
            .first()
            .map_or(PathBuf::new(), |file| file.parent().map(Path::to_owned).unwrap_or_default());
        for folder in folders.iter().chain([&base]) {
            known.add_folder(folder);
        }
        known
    }

    fn add_folder(&mut self, folder: &Path) {
        let (mut chains, mut keys) = (Vec::new(), Vec::new());
        for path in files_of(folder) {
            let name = self.name_of(&path);
            let Ok(bytes) = fs::read(&path) else { continue };
            if let Ok(chain) = X509::stack_from_pem(&bytes)
                && !chain.is_empty()
            {
                chains.push((name.clone(), chain));
            }
            // An encrypted key cannot be opened here; the empty pass phrase keeps OpenSSL from asking for one.
            if let Ok(key) = PKey::private_key_from_pem_passphrase(&bytes, b"") {
                keys.push((name, key));
            }
        }
        for (cert, chain) in &chains {
            let Some(public) = chain.first().and_then(|leaf| leaf.public_key().ok()) else { continue };
            for (key, private) in keys.iter().filter(|(_, private)| public.public_eq(private)) {
                let files = KeyPairConfig { cert: cert.clone(), key: key.clone(), password_file: None };
                let identity = ClientIdentity { chain: chain.clone(), key: private.clone() };
                let is_new = |known: &Pair| known.identity.chain.first() != chain.first();
                if self.pairs.iter().all(is_new) && may_be_client(&identity) {
                    self.pairs.push(Pair { files, identity });
                }
            }
        }
        for (file, certificates) in chains {
            let is_known =
                self.authorities.iter().any(|known| self.base.join(&known.file) == self.base.join(&file));
            if !is_known {
                self.authorities.push(Authority { file, certificates });
            }
        }
        // A CA says more than a leaf that happens to lie there too.
        self.authorities.sort_by_key(|known| !known.certificates.iter().any(|it| is_ca(it)));
    }

    /// As the configuration would name this file.
    fn name_of(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.base).unwrap_or(path).to_owned()
    }

    /// The first file that holds this certificate as a trusted one.
    pub fn file_with(&self, certificate: &X509Ref) -> Option<&Path> {
        let holds = |known: &&Authority| known.certificates.iter().any(|it| **it == *certificate);
        self.authorities.iter().find(holds).map(|known| known.file.as_path())
    }

    /// The certificate that signed this one, if it is at hand.
    pub fn issuer_of(&self, certificate: &X509Ref) -> Option<&X509> {
        self.authorities.iter().flat_map(|known| &known.certificates).find(|it| signed(it, certificate))
    }

    /// A name for a new file, in the folder of the others.
    pub fn new_file(&self, stem: &str) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' };
        let stem: String = stem.chars().map(plain).collect();
        let names = (1..).map(|number| match number {
            1 => self.folder.join(format!("{stem}.crt")),
            _ => self.folder.join(format!("{stem}-{number}.crt")),
        });
        names.into_iter().find(|name| !self.base.join(name).exists()).unwrap_or_default()
    }
}

/// Whether one certificate is signed by the other's key.
pub fn signed(issuer: &X509Ref, certificate: &X509Ref) -> bool {
    let same = issuer.subject_name().try_cmp(certificate.issuer_name());
    matches!(same, Ok(std::cmp::Ordering::Equal))
        && issuer.public_key().is_ok_and(|key| certificate.verify(&key).unwrap_or(false))
}

fn may_be_client(identity: &ClientIdentity) -> bool {
    let Some(leaf) = identity.chain.first() else { return false };
    let client = X509ExtendedKeyUsage::SSL_CLIENT | X509ExtendedKeyUsage::ANYEKU;
    !is_ca(leaf) && leaf.extended_key_usage().is_none_or(|usage| usage.intersects(client))
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files.retain(|file| {
        let is_hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !is_hidden && fs::metadata(file).is_ok_and(|it| it.is_file() && it.len() <= MOST_BYTES)
    });
    files.truncate(MOST_FILES);
    files
}

fn folder_of(path: &Path) -> PathBuf {
    match path.is_dir() {
        true => path.to_owned(),
        false => path.parent().map(Path::to_owned).unwrap_or_default(),
    }
}

/// What the configuration names.
#[derive(Default)]
struct Named {
    authorities: Vec<PathBuf>,
    pairs: Vec<KeyPairConfig>,
    files: Vec<PathBuf>,
}

impl Named {
    fn of(config: &Config) -> Self {
        let mut named = Self::default();
        let upstreams = config.upstreams.values().filter_map(|upstream| upstream.tls.as_ref());
        let routes = config.routes.iter().filter_map(|route| route.tls.as_ref());
        upstreams.chain(routes).for_each(|tls| named.add(tls));
        for tls in config.listeners.values().filter_map(|listener| listener.tls.as_ref()) {
            named
                .files
                .extend(tls.certificates.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]));
            for (_, clients) in tls.client_certificates() {
                named.files.extend([Some(clients.ca.clone()), clients.crl.clone()].into_iter().flatten());
            }
        }
        named
    }

    fn add(&mut self, tls: &TlsConfig) {
        if let Some(VerifyConfig::On(trust)) = &tls.verify {
            self.files.extend(trust.crl.clone());
            if let Some(CaConfig::File(file)) = &trust.ca
                && !self.authorities.contains(file)
            {
                self.authorities.push(file.clone());
                self.files.push(file.clone());
            }
        }
        if let Some(ClientCertificateConfig::Files(pair)) = &tls.client_certificate
            && !self.pairs.contains(pair)
        {
            self.pairs.push(pair.clone());
            self.files.extend([pair.cert.clone(), pair.key.clone()]);
        }
    }
}
