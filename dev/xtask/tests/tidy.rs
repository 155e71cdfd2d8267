//! The structure of the repository, as part of the tests.

#[test]
fn the_house_is_tidy() {
    let faults = xtask::tidy::check(&xtask::root()).expect("tidy runs");
    let listed: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert!(listed.is_empty(), "\n{}\n", listed.join("\n"));
}
