//! The structure of the repository, as part of the tests.

#[test]
fn the_house_is_tidy() {
    let faults = xtask::tidy::check(&xtask::root()).expect("tidy runs");
    let listed: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert!(listed.is_empty(), "\n{}\n", listed.join("\n"));
}

#[test]
fn envoys_descriptors_are_those_of_the_package_in_use() {
    assert!(
        xtask::descriptors::is_current(&xtask::root()).expect("the copy and the package are read"),
        "envoy-types has another version: run `cargo xtask descriptors`"
    );
}

#[test]
fn the_table_of_limits_is_what_the_code_says() {
    assert!(
        xtask::limits::is_current(&xtask::root()).expect("the code is read"),
        "a limit or a task has changed: run `cargo xtask limits`"
    );
}
