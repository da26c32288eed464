//! Encryption by one key, in the layouts of upstream (`k8s.io/apiserver/pkg/storage/value/encrypt`).

use aes::cipher::block_padding::NoPadding;
use aes::cipher::consts::{U12, U16};
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, BlockSizeUser, InnerIvInit, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::AesGcm;
use aes_gcm::aead::{Aead, Payload};
use crypto_secretbox::XSalsa20Poly1305;

/// Bytes of a block and of an initialization vector.
const BLOCK: usize = 16;
/// Bytes of the nonces that values begin with.
const GCM_NONCE: usize = 12;
const BOX_NONCE: usize = 24;
/// Bytes of a secretbox's authentication.
const BOX_TAG: usize = 16;

/// Why a value cannot be decrypted, in the words of upstream and of Go's ciphers.
pub const TOO_SHORT: &str = "the stored data was shorter than the required size";
const NOT_BLOCKS: &str = "the stored data is not a multiple of the block size";
const NO_PADDING: &str = "invalid PKCS7 data (empty or not padded)";
const BAD_PADDING: &str = "invalid padding on input";
const NOT_AUTHENTIC: &str = "cipher: message authentication failed";
const NOT_A_BOX: &str = "output array was not large enough for encryption";
const NO_KEY: &str = "crypto/aes: invalid key size";

/// A key for AES-GCM, by its size.
pub enum Gcm {
    Of128(Box<AesGcm<Aes128, U12>>),
    Of192(Box<AesGcm<Aes192, U12>>),
    Of256(Box<AesGcm<Aes256, U12>>),
}

impl Gcm {
    pub fn new(key: &[u8]) -> Result<Self, &'static str> {
        let wrong = |_| NO_KEY;
        Ok(match key.len() {
            16 => Self::Of128(Box::new(AesGcm::new_from_slice(key).map_err(wrong)?)),
            24 => Self::Of192(Box::new(AesGcm::new_from_slice(key).map_err(wrong)?)),
            32 => Self::Of256(Box::new(AesGcm::new_from_slice(key).map_err(wrong)?)),
            _ => return Err(NO_KEY),
        })
    }

    /// A nonce and the encrypted value, which can be decrypted only as the value of the same key.
    pub fn seal(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>, &'static str> {
        let nonce: [u8; GCM_NONCE] = rand::random();
        let (nonce_ref, payload) = ((&nonce).into(), Payload { msg: value, aad: key });
        let sealed = match self {
            Self::Of128(cipher) => cipher.encrypt(nonce_ref, payload),
            Self::Of192(cipher) => cipher.encrypt(nonce_ref, payload),
            Self::Of256(cipher) => cipher.encrypt(nonce_ref, payload),
        };
        Ok([&nonce[..], &sealed.map_err(|_| NOT_AUTHENTIC)?].concat())
    }

    pub fn open(&self, key: &[u8], stored: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (nonce, sealed) = stored.split_at_checked(GCM_NONCE).ok_or(TOO_SHORT)?;
        let payload = Payload { msg: sealed, aad: key };
        let opened = match self {
            Self::Of128(cipher) => cipher.decrypt(nonce.into(), payload),
            Self::Of192(cipher) => cipher.decrypt(nonce.into(), payload),
            Self::Of256(cipher) => cipher.decrypt(nonce.into(), payload),
        };
        opened.map_err(|_| NOT_AUTHENTIC)
    }
}

/// A key for AES-CBC, by its size.
pub enum Cbc {
    Of128(Box<Aes128>),
    Of192(Box<Aes192>),
    Of256(Box<Aes256>),
}

impl Cbc {
    pub fn new(key: &[u8]) -> Result<Self, &'static str> {
        let wrong = |_| NO_KEY;
        Ok(match key.len() {
            16 => Self::Of128(Box::new(Aes128::new_from_slice(key).map_err(wrong)?)),
            24 => Self::Of192(Box::new(Aes192::new_from_slice(key).map_err(wrong)?)),
            32 => Self::Of256(Box::new(Aes256::new_from_slice(key).map_err(wrong)?)),
            _ => return Err(NO_KEY),
        })
    }

    /// The initialization vector and the encrypted value, padded.
    pub fn seal(&self, value: &[u8]) -> Vec<u8> {
        let start: [u8; BLOCK] = rand::random();
        let padding = BLOCK - value.len() % BLOCK;
        let mut padded = value.to_vec();
        padded.resize(value.len() + padding, u8::try_from(padding).unwrap_or_default());
        let sealed = match self {
            Self::Of128(cipher) => encrypt(&**cipher, &start, &padded),
            Self::Of192(cipher) => encrypt(&**cipher, &start, &padded),
            Self::Of256(cipher) => encrypt(&**cipher, &start, &padded),
        };
        [&start[..], &sealed].concat()
    }

    pub fn open(&self, stored: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (start, sealed) = stored.split_at_checked(BLOCK).ok_or(TOO_SHORT)?;
        if sealed.len() % BLOCK != 0 {
            return Err(NOT_BLOCKS);
        }
        let mut opened = match self {
            Self::Of128(cipher) => decrypt(&**cipher, start, sealed),
            Self::Of192(cipher) => decrypt(&**cipher, start, sealed),
            Self::Of256(cipher) => decrypt(&**cipher, start, sealed),
        };
        let last = *opened.last().ok_or(NO_PADDING)?;
        let padding = usize::from(last);
        let size = opened.len().checked_sub(padding).filter(|_| padding > 0).ok_or(NO_PADDING)?;
        if opened[size..].iter().any(|byte| *byte != last) {
            return Err(BAD_PADDING);
        }
        opened.truncate(size);
        Ok(opened)
    }
}

fn encrypt<C>(cipher: &C, start: &[u8], padded: &[u8]) -> Vec<u8>
where
    C: BlockEncryptMut + aes::cipher::BlockCipher + Clone + BlockSizeUser<BlockSize = U16>,
{
    let mode = cbc::Encryptor::<C>::inner_iv_init(cipher.clone(), start.into());
    mode.encrypt_padded_vec_mut::<NoPadding>(padded)
}

fn decrypt<C>(cipher: &C, start: &[u8], sealed: &[u8]) -> Vec<u8>
where
    C: BlockDecryptMut + aes::cipher::BlockCipher + Clone + BlockSizeUser<BlockSize = U16>,
{
    let mode = cbc::Decryptor::<C>::inner_iv_init(cipher.clone(), start.into());
    mode.decrypt_padded_vec_mut::<NoPadding>(sealed).expect("whole blocks without padding")
}

/// A key for NaCl's secretbox.
pub struct Secretbox(Box<XSalsa20Poly1305>);

impl Secretbox {
    pub fn new(key: &[u8]) -> Result<Self, &'static str> {
        XSalsa20Poly1305::new_from_slice(key).map(Box::new).map(Self).map_err(|_| NO_KEY)
    }

    pub fn seal(&self, value: &[u8]) -> Result<Vec<u8>, &'static str> {
        let nonce: [u8; BOX_NONCE] = rand::random();
        let sealed = self.0.encrypt((&nonce).into(), value).map_err(|_| NOT_A_BOX)?;
        Ok([&nonce[..], &sealed].concat())
    }

    pub fn open(&self, stored: &[u8]) -> Result<Vec<u8>, &'static str> {
        let long = stored.len() >= BOX_NONCE + BOX_TAG;
        let (nonce, sealed) =
            stored.split_at_checked(BOX_NONCE).filter(|_| long).ok_or(TOO_SHORT)?;
        self.0.decrypt(nonce.into(), sealed).map_err(|_| NOT_A_BOX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

    #[test]
    fn values_come_back_under_their_key_only() {
        for value in [&b""[..], b"x", &[7; 16], &[9; 1_000]] {
            for size in [16, 24, 32] {
                let gcm = Gcm::new(&KEY[..size]).unwrap();
                let sealed = gcm.seal(b"/registry/a", value).unwrap();
                assert_eq!(gcm.open(b"/registry/a", &sealed).unwrap(), value);
                assert_eq!(gcm.open(b"/registry/b", &sealed), Err(NOT_AUTHENTIC));
                let cbc = Cbc::new(&KEY[..size]).unwrap();
                assert_eq!(cbc.open(&cbc.seal(value)).unwrap(), value);
            }
            let secretbox = Secretbox::new(KEY).unwrap();
            let sealed = secretbox.seal(value).unwrap();
            assert_eq!(secretbox.open(&sealed).unwrap(), value);
            let mut other = sealed.clone();
            other[BOX_NONCE] ^= 1;
            assert_eq!(secretbox.open(&other), Err(NOT_A_BOX));
        }
        assert!(Gcm::new(&KEY[..5]).is_err() && Cbc::new(&KEY[..17]).is_err());
        assert!(Secretbox::new(&KEY[..16]).is_err());
    }

    #[test]
    fn broken_values_are_refused() {
        let (gcm, cbc) = (Gcm::new(KEY).unwrap(), Cbc::new(KEY).unwrap());
        assert_eq!(gcm.open(b"", b"short"), Err(TOO_SHORT));
        assert_eq!(cbc.open(b"short"), Err(TOO_SHORT));
        assert_eq!(cbc.open(&[0; 16]), Err(NO_PADDING));
        assert_eq!(cbc.open(&[0; 17]), Err(NOT_BLOCKS));
        assert_eq!(Secretbox::new(KEY).unwrap().open(&[0; 39]), Err(TOO_SHORT));
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..64 {
            if let Err(error) = cbc.open(&[seed; 48]) {
                seen.insert(error);
            }
        }
        assert!(seen.len() == 2 && seen.contains(BAD_PADDING), "{seen:?}");
    }

    /// Known answers: NIST SP 800-38A F.2.5 and the secretbox of NaCl's `tests/secretbox.c`.
    #[test]
    fn known_answers() {
        let bytes = |hex: &str| -> Vec<u8> {
            let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
            let pair =
                |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            digits.chunks(2).map(pair).collect()
        };
        let cbc =
            Cbc::new(&bytes("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"))
                .unwrap();
        let Cbc::Of256(cipher) = &cbc else { panic!("a key of 256 bits") };
        let start = bytes("000102030405060708090a0b0c0d0e0f");
        let plain = bytes("6bc1bee22e409f96e93d7e117393172a");
        let sealed = bytes("f58c4c04d6e5f1ba779eabfb5f7bfbd6");
        assert_eq!(encrypt(&**cipher, &start, &plain), sealed);
        let secretbox = Secretbox::new(&bytes(
            "1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389",
        ))
        .unwrap();
        let nonce = bytes("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37");
        let message = bytes(
            "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01
             233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd
             4924ca1c60902e52f0a089bc76897040e082f937763848645e0705",
        );
        let start = bytes(
            "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a",
        );
        let sealed = secretbox.0.encrypt((&nonce[..]).into(), &message[..]).unwrap();
        assert_eq!(sealed[..start.len()], start);
    }
}
