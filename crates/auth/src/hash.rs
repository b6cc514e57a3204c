//! Hashes of passwords in the three forms that mosquitto's password files know.

use std::{fmt, hint::black_box, str::FromStr};

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use sha2::{Digest, Sha512};

/// The salt and the result of one password's hash, with how it was made. Its text is what stands in the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    recipe: Recipe,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

/// How a new password is hashed (`firehose passwd -H`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashKind {
    /// Argon2id with 19 MiB and two passes; mosquitto reads it from 2.1 on.
    #[default]
    Argon2id,
    /// PBKDF2-HMAC-SHA512 with 210,000 rounds; every mosquitto since 2.0 reads it.
    Sha512Pbkdf2,
}

/// Why a hash cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashError(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recipe {
    /// `$6$`: SHA-512 of password and salt, once. Read, never written.
    Sha512,
    /// `$7$`
    Pbkdf2 { rounds: u32 },
    /// `$argon2id$`
    Argon2id { version: Version, memory_kib: u32, passes: u32, lanes: u32 },
}

const SHA512_BYTES: usize = 64;
const PBKDF2_ROUNDS: u32 = 210_000;
const PBKDF2_SALT_BYTES: usize = 12;
const ARGON2_MEMORY_KIB: u32 = 19 * 1024;
const ARGON2_PASSES: u32 = 2;
const ARGON2_SALT_BYTES: usize = 16;
const ARGON2_DIGEST_BYTES: usize = 32;

// What a file may ask of us: one password check must not take minutes or the machine's memory.
const ROUNDS_MAX: u32 = 10_000_000;
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 64;
const LANES_MAX: u32 = 64;
const SALT_BYTES_MAX: usize = 1024;
const DIGEST_BYTES_MAX: usize = 128;

/// mosquitto pads, PHC strings do not; both are read.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const BASE64_UNPADDED: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_encode_padding(false));

impl Hash {
    /// Hashes a new password with a salt from the system. Takes some tens of milliseconds.
    pub fn create(kind: HashKind, password: &[u8]) -> Result<Self, HashError> {
        let (recipe, salt_bytes, digest_bytes) = match kind {
            HashKind::Argon2id => (
                Recipe::Argon2id {
                    version: Version::V0x13,
                    memory_kib: ARGON2_MEMORY_KIB,
                    passes: ARGON2_PASSES,
                    lanes: 1,
                },
                ARGON2_SALT_BYTES,
                ARGON2_DIGEST_BYTES,
            ),
            HashKind::Sha512Pbkdf2 => {
                (Recipe::Pbkdf2 { rounds: PBKDF2_ROUNDS }, PBKDF2_SALT_BYTES, SHA512_BYTES)
            }
        };
        let mut salt = vec![0; salt_bytes];
        getrandom::fill(&mut salt)
            .map_err(|error| HashError(format!("the system gives no random bytes for a salt: {error}")))?;
        let digest = recipe.digest(password, &salt, digest_bytes)?;
        Ok(Self { recipe, salt, digest })
    }

    /// Whether this is the hash of `password`. Takes as long as the hash's author chose; compares in constant time.
    pub fn verify(&self, password: &[u8]) -> bool {
        match self.recipe.digest(password, &self.salt, self.digest.len()) {
            Ok(digest) => equal(&digest, &self.digest),
            Err(_) => false,
        }
    }

    /// Whether `text` claims to be a hash, well-formed or not (and so is no plain password).
    pub fn looks_like(text: &str) -> bool {
        ["$6$", "$7$", "$argon2"].iter().any(|prefix| text.starts_with(prefix))
    }
}

impl FromStr for Hash {
    type Err = HashError;

    /// Reads `$6$salt$hash`, `$7$rounds$salt$hash` or `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
    fn from_str(text: &str) -> Result<Self, HashError> {
        let fields: Vec<&str> = text.split('$').collect();
        let (recipe, salt, digest) = match fields[..] {
            ["", "6", salt, digest] => (Recipe::Sha512, salt, digest),
            ["", "7", rounds, salt, digest] => {
                (Recipe::Pbkdf2 { rounds: number(rounds, "rounds", 1, ROUNDS_MAX)? }, salt, digest)
            }
            ["", "argon2id", costs, salt, digest] => (argon2_recipe("v=16", costs)?, salt, digest),
            ["", "argon2id", version, costs, salt, digest] => (argon2_recipe(version, costs)?, salt, digest),
            ["", "6" | "7" | "argon2id", ..] => {
                return Err(HashError("a hash with too few or too many `$` fields".into()));
            }
            _ => {
                return Err(HashError(
                    "not a hash that is known ($6$, $7$, $argon2id$); hash plain text with `firehose passwd -U`"
                        .into(),
                ));
            }
        };
        let salt = decode(salt, "salt")?;
        let digest = decode(digest, "hash")?;
        let (salt_min, digest_min, digest_max) = match recipe {
            Recipe::Argon2id { .. } => (argon2::MIN_SALT_LEN, 16, DIGEST_BYTES_MAX),
            _ => (1, SHA512_BYTES, SHA512_BYTES),
        };
        if salt.len() < salt_min || salt.len() > SALT_BYTES_MAX {
            return Err(HashError(format!("a salt of {} bytes is too short or too long", salt.len())));
        }
        if digest.len() < digest_min || digest.len() > digest_max {
            return Err(HashError(format!("a hash of {} bytes is too short or too long", digest.len())));
        }
        let hash = Self { recipe, salt, digest };
        hash.recipe.argon2(hash.digest.len())?;
        Ok(hash)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.recipe {
            Recipe::Sha512 => write!(f, "$6${}${}", BASE64.encode(&self.salt), BASE64.encode(&self.digest)),
            Recipe::Pbkdf2 { rounds } => {
                write!(f, "$7${rounds}${}${}", BASE64.encode(&self.salt), BASE64.encode(&self.digest))
            }
            Recipe::Argon2id { version, memory_kib, passes, lanes } => write!(
                f,
                "$argon2id$v={}$m={memory_kib},t={passes},p={lanes}${}${}",
                u32::from(version),
                BASE64_UNPADDED.encode(&self.salt),
                BASE64_UNPADDED.encode(&self.digest)
            ),
        }
    }
}

impl fmt::Debug for Hash {
    /// The recipe only: hashes have no business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hash").field("recipe", &self.recipe).finish_non_exhaustive()
    }
}

impl FromStr for HashKind {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        match text {
            "argon2id" => Ok(Self::Argon2id),
            "sha512-pbkdf2" => Ok(Self::Sha512Pbkdf2),
            _ => Err(HashError(format!("`{text}` is no known hash; use argon2id or sha512-pbkdf2"))),
        }
    }
}

impl fmt::Display for HashKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Argon2id => "argon2id",
            Self::Sha512Pbkdf2 => "sha512-pbkdf2",
        })
    }
}

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HashError {}

impl Recipe {
    fn digest(self, password: &[u8], salt: &[u8], digest_bytes: usize) -> Result<Vec<u8>, HashError> {
        let mut digest = vec![0; digest_bytes];
        match self {
            Self::Sha512 => {
                digest = Sha512::new().chain_update(password).chain_update(salt).finalize().to_vec()
            }
            Self::Pbkdf2 { rounds } => pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, rounds, &mut digest),
            Self::Argon2id { .. } => {
                if let Some(argon2) = self.argon2(digest_bytes)? {
                    argon2
                        .hash_password_into(password, salt, &mut digest)
                        .map_err(|error| HashError(format!("argon2id refuses: {error}")))?;
                }
            }
        }
        Ok(digest)
    }

    fn argon2(self, digest_bytes: usize) -> Result<Option<Argon2<'static>>, HashError> {
        let Self::Argon2id { version, memory_kib, passes, lanes } = self else { return Ok(None) };
        let params = Params::new(memory_kib, passes, lanes, Some(digest_bytes))
            .map_err(|error| HashError(format!("argon2id does not take these costs: {error}")))?;
        Ok(Some(Argon2::new(Algorithm::Argon2id, version, params)))
    }
}

fn argon2_recipe(version: &str, costs: &str) -> Result<Recipe, HashError> {
    let version = match version {
        "v=19" => Version::V0x13,
        "v=16" => Version::V0x10,
        _ => return Err(HashError(format!("argon2 version `{version}` is not known; v=19 is"))),
    };
    let mut parts = costs.split(',');
    let mut cost = |name: &str, max: u32| {
        let part =
            parts.next().and_then(|part| part.strip_prefix(name)).and_then(|part| part.strip_prefix('='));
        number(part.unwrap_or(""), name, 1, max)
    };
    let recipe = Recipe::Argon2id {
        version,
        memory_kib: cost("m", MEMORY_KIB_MAX)?,
        passes: cost("t", PASSES_MAX)?,
        lanes: cost("p", LANES_MAX)?,
    };
    match parts.next() {
        None => Ok(recipe),
        Some(more) => Err(HashError(format!("argon2id with `{more}` is not known"))),
    }
}

fn number(text: &str, name: &str, min: u32, max: u32) -> Result<u32, HashError> {
    match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(HashError(format!("`{text}` is not a number of {name} from {min} to {max}"))),
    }
}

fn decode(text: &str, name: &str) -> Result<Vec<u8>, HashError> {
    BASE64.decode(text).map_err(|error| HashError(format!("the {name} is not base64: {error}")))
}

fn equal(one: &[u8], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |differing, (a, b)| black_box(differing | (a ^ b)));
    one.len() == other.len() && black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_hashes_verify_and_survive_their_text() {
        for kind in [HashKind::Argon2id, HashKind::Sha512Pbkdf2] {
            let hash = Hash::create(kind, b"s3cret").unwrap();
            assert!(hash.verify(b"s3cret"));
            assert!(!hash.verify(b"s3cres"));
            assert!(!hash.verify(b""));
            assert_eq!(hash.to_string().parse::<Hash>().unwrap(), hash);
            assert_eq!(kind.to_string().parse::<HashKind>().unwrap(), kind);
        }
    }

    #[test]
    fn two_hashes_of_one_password_differ() {
        let one = Hash::create(HashKind::Argon2id, b"x").unwrap();
        assert_ne!(one, Hash::create(HashKind::Argon2id, b"x").unwrap());
    }

    #[test]
    fn an_argon2id_hash_of_the_reference_implementation_verifies() {
        // From the argon2 reference implementation's test.c: 64 MiB, 2 passes, "password", "somesalt".
        let hash: Hash =
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
                .parse()
                .unwrap();
        assert!(hash.verify(b"password"));
        assert!(!hash.verify(b"Password"));
    }

    #[test]
    fn what_is_no_hash_is_told() {
        for (text, why) in [
            ("plain", "passwd -U"),
            ("", "passwd -U"),
            ("$5$a$b", "passwd -U"),
            ("$6$onlysalt", "fields"),
            ("$6$%%%%$AAAA", "base64"),
            ("$6$AAAAAAAAAAAAAAAA$AAAA", "3 bytes"),
            ("$7$0$AAAA$AAAA", "rounds"),
            ("$7$99999999999$AAAA$AAAA", "rounds"),
            ("$argon2id$v=20$m=8,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "version"),
            ("$argon2id$v=19$t=1,m=8,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "number of m"),
            ("$argon2id$v=19$m=999999999,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "number of m"),
            ("$argon2id$v=19$m=8,t=1,p=8$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "costs"),
            ("$argon2id$v=19$m=8,t=1,p=1,x=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "x=1"),
        ] {
            let error = text.parse::<Hash>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn debug_text_has_no_hash_in_it() {
        let hash = Hash::create(HashKind::Argon2id, b"x").unwrap();
        let digest = BASE64_UNPADDED.encode(&hash.digest);
        assert!(!format!("{hash:?}").contains(&digest));
    }
}
