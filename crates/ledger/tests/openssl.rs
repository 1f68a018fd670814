//! Keys and signatures are those of OpenSSL, when `openssl` is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use audit_ledger::{Note, NoteVerifier, SignerKey, VerifierKey};

const TEXT: &str = "example.com/log\n3\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";

/// Runs openssl in a folder; says whether it succeeded. `None` when there is none.
fn openssl(folder: &Path, arguments: &[&str]) -> Option<bool> {
    match Command::new("openssl").args(arguments).current_dir(folder).output() {
        Ok(output) => Some(output.status.success()),
        Err(error) => {
            eprintln!("openssl: {error}: skipped");
            None
        }
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("openssl-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Makes a key with openssl and reads it.
fn key(folder: &Path) -> Option<SignerKey> {
    assert!(openssl(folder, &["genpkey", "-algorithm", "ed25519", "-out", "key.pem"])?, "openssl makes no key");
    let pem = fs::read_to_string(folder.join("key.pem")).unwrap();
    Some(SignerKey::from_pkcs8_pem("example.com/log", &pem).unwrap())
}

#[test]
fn openssl_verifies_what_we_sign() {
    let folder = folder("verify");
    let Some(key) = key(&folder) else { return };
    let verify = || {
        let arguments = ["-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "text", "-sigfile", "signature"];
        openssl(&folder, &[&["pkeyutl"], arguments.as_slice()].concat()).unwrap()
    };
    let note = Note::sign(TEXT.to_owned(), &[&key]).unwrap();
    fs::write(folder.join("public.pem"), key.verifier().to_public_key_pem()).unwrap();
    fs::write(folder.join("signature"), note.signatures()[0].bytes()).unwrap();
    fs::write(folder.join("text"), TEXT).unwrap();
    assert!(verify());
    fs::write(folder.join("text"), TEXT.replace('3', "4")).unwrap();
    assert!(!verify());
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn we_verify_what_openssl_signs() {
    let folder = folder("sign");
    let Some(key) = key(&folder) else { return };
    fs::write(folder.join("text"), TEXT).unwrap();
    assert!(openssl(&folder, &["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]).unwrap());
    let sign = ["pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", "text", "-out", "signature"];
    assert!(openssl(&folder, &sign).unwrap());
    let pem = fs::read_to_string(folder.join("public.pem")).unwrap();
    let public = VerifierKey::from_public_key_pem("example.com/log", &pem).unwrap();
    assert_eq!(public, key.verifier());
    assert_eq!(public.to_public_key_pem(), pem);
    let signature = fs::read(folder.join("signature")).unwrap();
    assert!(public.verify(TEXT, &signature));
    assert!(!public.verify(&TEXT.replace('3', "4"), &signature));
    // Ed25519 leaves no choice: both make the same bytes.
    assert_eq!(key.sign(TEXT).bytes(), signature);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn keys_of_other_kinds_are_refused() {
    let folder = folder("other");
    for (arguments, file) in [
        (["genpkey", "-algorithm", "x25519", "-out", "x.pem"].as_slice(), "x.pem"),
        (&["genpkey", "-algorithm", "ed448", "-out", "ed448.pem"], "ed448.pem"),
        (&["genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "ec.pem"], "ec.pem"),
        (&["genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:x", "-out", "locked.pem"], "locked.pem"),
    ] {
        let Some(made) = openssl(&folder, arguments) else { return };
        assert!(made, "{arguments:?}");
        let pem = fs::read_to_string(folder.join(file)).unwrap();
        assert!(SignerKey::from_pkcs8_pem("a", &pem).is_err(), "{file}");
    }
    fs::remove_dir_all(folder).unwrap();
}
