# Short ways; `just` alone lists them. Everything works without just, too: see CONTRIBUTING.md.

default:
    @just --list

# the bus on loopback, with recorded events
run:
    cargo run --release -- demo

# everything, or the named sections
test *sections:
    tests/run {{sections}}

# the tests of one crate, e.g. `just crate log`
crate name *arguments:
    cargo test --profile ci -p firehose-{{name}} {{arguments}}

fmt:
    cargo fmt --all
    cargo fmt --manifest-path fuzz/Cargo.toml
    cargo fmt --manifest-path tests/clients/rumqttc/Cargo.toml

lint:
    tests/run lint deny

loom:
    tests/run loom

docs:
    tests/run docs

# one fuzz target for a while; needs nightly and cargo-fuzz
fuzz target seconds="60":
    cargo +nightly fuzz run {{target}} -- -max_total_time={{seconds}}

# firehose, mosquitto and a bare server side by side
bench *arguments:
    bench/compare {{arguments}}

# the book, in target/book; needs mdbook
book:
    mdbook build docs
