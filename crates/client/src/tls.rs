//! Whom to trust: the system's certificates, or those of a file.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::ClientError;

/// Which authorities may vouch for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// Those of the system.
    #[default]
    System,
    /// Those in this PEM file, and no others.
    File(PathBuf),
}

impl Roots {
    /// The certificates.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, ClientError> {
        let certificates = match self {
            Roots::System => rustls_native_certs::load_native_certs().certs,
            Roots::File(path) => {
                CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| {
                    ClientError::Usage(format!("{}: no certificates can be read: {error}", path.display()))
                })?
            }
        };
        match (certificates.is_empty(), self) {
            (false, _) => Ok(certificates),
            (true, Roots::File(path)) => {
                Err(ClientError::Usage(format!("{}: there is no certificate in it", path.display())))
            }
            (true, Roots::System) => Err(ClientError::Usage(
                "this system has no certificates to trust: install ca-certificates, or give --cafile".into(),
            )),
        }
    }
}

/// The cryptography that is used.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A configuration for clients that trust these.
pub(crate) fn client_config(roots: &Roots) -> Result<Arc<ClientConfig>, ClientError> {
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(roots.certificates()?);
    if added == 0 {
        return Err(ClientError::Usage("none of the certificates to trust can be used".into()));
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Usage(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
