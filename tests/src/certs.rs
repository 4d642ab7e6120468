//! Authorities and certificates made on the spot, as PEM files in a temporary folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use openssl::pkey::PKey;
use openssl::symm::Cipher;
use openssl::x509::{X509, X509Ref};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevocationReason, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

/// The folder that the files are in. They go when it is dropped.
pub struct Certs {
    folder: TempDir,
    count: AtomicUsize,
}

/// One that signs.
pub struct Authority {
    /// Its own certificate: what trusts it names this file.
    pub cert: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// What a leaf's file has after the leaf: the intermediates, not the root.
    chain: String,
}

/// A certificate, its chain behind it, and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The leaf and the intermediates above it.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub both: PathBuf,
}

impl Certs {
    /// An empty folder.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), count: AtomicUsize::new(0) }
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A root of its own.
    pub fn authority(&self, name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let params = authority_params(name);
        let pem = params.self_signed(&key).unwrap().pem();
        let cert = self.write(name, "crt", &pem);
        Authority { cert, issuer: Issuer::new(params, key), chain: String::new() }
    }

    /// One that another has signed; its leaves carry its certificate behind their own.
    pub fn intermediate(&self, name: &str, above: &Authority) -> Authority {
        let key = KeyPair::generate().unwrap();
        let params = authority_params(name);
        let pem = params.signed_by(&key, &above.issuer).unwrap().pem();
        let cert = self.write(name, "crt", &pem);
        Authority { cert, issuer: Issuer::new(params, key), chain: pem + &above.chain }
    }

    /// A server's certificate. Names that read as IP addresses become IP names.
    pub fn server(&self, by: &Authority, names: &[&str]) -> Pair {
        let params = leaf_params(names[0], names, ExtendedKeyUsagePurpose::ServerAuth);
        self.signed(names[0], &params, by)
    }

    /// A server's certificate as a public authority makes them: valid for half a year, with the address of a revocation list.
    pub fn published(&self, by: &Authority, name: &str) -> Pair {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let mut params = leaf_params(name, &[name], ExtendedKeyUsagePurpose::ServerAuth);
        params.not_before = (SystemTime::now() - DAY).into();
        params.not_after = (SystemTime::now() + 180 * DAY).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.crl_distribution_points =
            vec![CrlDistributionPoint { uris: vec!["http://ca.test/list.crl".into()] }];
        self.signed(name, &params, by)
    }

    /// A server's certificate whose last day was in 2020.
    pub fn expired(&self, by: &Authority, names: &[&str]) -> Pair {
        let mut params = leaf_params(names[0], names, ExtendedKeyUsagePurpose::ServerAuth);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.signed(names[0], &params, by)
    }

    /// A server's certificate signed by its own key.
    pub fn self_signed(&self, names: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = leaf_params(names[0], names, ExtendedKeyUsagePurpose::ServerAuth);
        let pem = params.self_signed(&key).unwrap().pem();
        self.pair(names[0], &pem, &key)
    }

    /// A server's certificate whose name is its common name alone, as they were before alternative names.
    pub fn common_name_only(&self, by: &Authority, name: &str) -> Pair {
        self.signed(name, &leaf_params(name, &[], ExtendedKeyUsagePurpose::ServerAuth), by)
    }

    /// A list of what this authority has revoked, valid for a century.
    pub fn crl(&self, by: &Authority, revoked: &[&Pair]) -> PathBuf {
        self.crl_until(by, revoked, 2124)
    }

    /// The same, valid until the first day of this year.
    pub fn crl_until(&self, by: &Authority, revoked: &[&Pair], year: i32) -> PathBuf {
        let entry = |pair: &&Pair| {
            let leaf = X509::from_pem(&fs::read(&pair.cert).unwrap()).unwrap();
            RevokedCertParams {
                serial_number: SerialNumber::from(leaf.serial_number().to_bn().unwrap().to_vec()),
                revocation_time: date_time_ymd(2024, 1, 1),
                reason_code: Some(RevocationReason::KeyCompromise),
                invalidity_date: None,
            }
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.write("list", "crl", &params.signed_by(&by.issuer).unwrap().pem().unwrap())
    }

    /// Several lists in one file.
    pub fn crls(&self, lists: &[PathBuf]) -> PathBuf {
        let text: String = lists.iter().map(|list| fs::read_to_string(list).unwrap()).collect();
        self.write("lists", "crl", &text)
    }

    /// The same certificate with its key behind a password, and the file that has the password.
    pub fn encrypted(&self, pair: &Pair, password: &str) -> (Pair, PathBuf) {
        let key = PKey::private_key_from_pem(&fs::read(&pair.key).unwrap()).unwrap();
        let key =
            key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), password.as_bytes()).unwrap();
        let key = self.write("encrypted", "key", &String::from_utf8(key).unwrap());
        (Pair { key, ..pair.clone() }, self.write("password", "txt", &format!("{password}\n")))
    }

    /// A server's certificate whose first day is in 2100.
    pub fn not_yet_valid(&self, by: &Authority, names: &[&str]) -> Pair {
        let mut params = leaf_params(names[0], names, ExtendedKeyUsagePurpose::ServerAuth);
        params.not_before = date_time_ymd(2100, 1, 1);
        params.not_after = date_time_ymd(2101, 1, 1);
        self.signed(names[0], &params, by)
    }

    /// The same certificate and key with the certificates of these files behind the leaf, and no others.
    pub fn with_chain(&self, pair: &Pair, above: &[&Path]) -> Pair {
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let leaf = X509::from_pem(&fs::read(&pair.cert).unwrap()).unwrap().to_pem().unwrap();
        let above: String = above.iter().map(|path| read(path)).collect();
        let cert = String::from_utf8(leaf).unwrap() + &above;
        Pair {
            cert: self.write("chained", "crt", &cert),
            key: pair.key.clone(),
            both: self.write("chained", "pem", &(cert + &read(&pair.key))),
        }
    }

    /// A client's certificate whose last day was in 2020.
    pub fn expired_client(&self, by: &Authority, name: &str) -> Pair {
        let mut params = leaf_params(name, &[], ExtendedKeyUsagePurpose::ClientAuth);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.signed(name, &params, by)
    }

    /// A client's certificate with this common name.
    pub fn client(&self, by: &Authority, name: &str) -> Pair {
        self.signed(name, &leaf_params(name, &[], ExtendedKeyUsagePurpose::ClientAuth), by)
    }

    /// A client's certificate with an organisation and alternative names: what has a scheme is a URI, what has an `@` an
    /// address of mail.
    pub fn identified(&self, by: &Authority, name: &str, organization: &str, names: &[&str]) -> Pair {
        let is_plain = |name: &&&str| !name.contains("://") && !name.contains('@');
        let plain: Vec<&str> = names.iter().filter(is_plain).copied().collect();
        let mut params = leaf_params(name, &plain, ExtendedKeyUsagePurpose::ClientAuth);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        for &name in names.iter().filter(|name| !is_plain(name)) {
            let text = name.try_into().unwrap();
            params.subject_alt_names.push(match name.contains("://") {
                true => SanType::URI(text),
                false => SanType::Rfc822Name(text),
            });
        }
        self.signed(name, &params, by)
    }

    fn signed(&self, stem: &str, params: &CertificateParams, by: &Authority) -> Pair {
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &by.issuer).unwrap().pem() + &by.chain;
        self.pair(stem, &pem, &key)
    }

    fn pair(&self, stem: &str, cert: &str, key: &KeyPair) -> Pair {
        let key = key.serialize_pem();
        Pair {
            cert: self.write(stem, "crt", cert),
            key: self.write(stem, "key", &key),
            both: self.write(stem, "pem", &format!("{cert}{key}")),
        }
    }

    fn write(&self, stem: &str, ending: &str, text: &str) -> PathBuf {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let stem = stem.replace(['*', ':', ' '], "_");
        let path = self.folder.path().join(format!("{number}-{stem}.{ending}"));
        fs::write(&path, text).unwrap();
        if ending != "crt" {
            // As a key is kept, so that nothing warns of it.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        path
    }
}

/// The pin of a certificate's key, by the steps of the example in RFC 7469 section 2.4.
pub fn pin(pair: &Pair) -> String {
    pin_of(&X509::from_pem(&fs::read(&pair.cert).unwrap()).unwrap())
}

/// The same of a certificate that a server showed.
pub fn pin_of(leaf: &X509Ref) -> String {
    let key = leaf.public_key().unwrap().public_key_to_der().unwrap();
    format!("sha256/{}", openssl::base64::encode_block(&openssl::sha::sha256(&key)))
}

impl Default for Certs {
    fn default() -> Self {
        Self::new()
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(name: &str, names: &[&str], usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = common_name(name);
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
