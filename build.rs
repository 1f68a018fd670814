//! Tells the linker to lay the functions that record a change side by side: see `hot.ld`.
//!
//! Only ld and lld, rustc's own choices, know such an addition to their script. Whoever links with another (gold, mold) sets `AUDIT_LINK_ORDER=off`.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=hot.ld");
    println!("cargo:rerun-if-env-changed=AUDIT_LINK_ORDER");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") && !is("AUDIT_LINK_ORDER", "off") {
        let directory = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        println!("cargo:rustc-cdylib-link-arg=-Wl,-T,{directory}/hot.ld");
    }
}
