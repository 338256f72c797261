//! A client's key pair and the assertions it signs. Also used by the tests of `keepwell-identity`, hence free of
//! everything else here.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA384, RsaKeyPair,
};
use serde_json::{Value, json};

pub enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    pub fn alg(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS384",
            Self::Ec(_) => "ES384",
            Self::Ed(_) => "EdDSA",
        }
    }

    /// The public half.
    pub fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Rsa(pair) => {
                // PKCS #1: the modulus of 2048 bits, then `02 03 01 00 01`, the exponent.
                let der = pair.public_key().as_ref();
                let modulus = &der[der.len() - 5 - 256..der.len() - 5];
                json!({"kty": "RSA", "kid": kid, "alg": "RS384", "use": "sig", "n": url64(modulus), "e": "AQAB"})
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-384", "kid": kid, "key_ops": ["verify"], "x": url64(&point[1..49]), "y": url64(&point[49..])})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "alg": "EdDSA", "x": url64(pair.public_key())})
            }
        }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA384, &random, message, &mut out).unwrap();
                out
            }
            Self::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A JWT of any header and claims, as text: also of such as no library would write.
    pub fn jwt(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", url64(header), url64(claims));
        let signature = url64(self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The header of its assertions.
    pub fn header(&self, kid: &str) -> Value {
        json!({"alg": self.alg(), "kid": kid, "typ": "JWT"})
    }
}

/// The claims of an assertion that is in order.
pub fn claims(client: &str, audience: &str, now_s: i64, jti: &str) -> Value {
    json!({"iss": client, "sub": client, "aud": audience, "exp": now_s + 240, "iat": now_s, "jti": jti})
}

/// Base64url without padding.
pub fn url64(bytes: impl AsRef<[u8]>) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for three in bytes.as_ref().chunks(3) {
        let n = three.iter().fold(0_u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for i in 0..=three.len() {
            out.push(char::from(LETTERS[(n >> (18 - 6 * i)) as usize & 63]));
        }
    }
    out
}
