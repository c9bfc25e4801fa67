//! Gives the shared library the name under which programs ask for it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libsteadfastcheckpoint.so.0");
}
