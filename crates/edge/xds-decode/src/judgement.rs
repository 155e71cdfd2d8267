//! The judgement over every field of every message we read, and the support matrix made from it.
//!
//! `take!` opens a message without `..`, so a field that a newer protobuf file brings does not
//! compile until someone has put it under one of four headings: **read** (decides something),
//! **ignored** (harmless; the reason says why), **left out** (refused by name, at no loss of
//! security: the resource is taken without it), **rejected** (refused by name when it is set, and
//! with it the part of the configuration that it belongs to). Each use leaves a static entry, from
//! which the support matrix is collected by the linker.

use std::collections::{BTreeMap, HashMap};

use linkme::distributed_slice;

/// The judgement over one message, as left by one `take!`.
#[derive(Debug)]
pub struct Judged {
    pub(crate) message: fn() -> String,
    pub(crate) read: &'static [&'static str],
    pub(crate) ignored: &'static [(&'static str, &'static str)],
    pub(crate) left_out: &'static [(&'static str, &'static str)],
    pub(crate) rejected: &'static [(&'static str, &'static str)],
}

/// All judgements of the program.
#[distributed_slice]
pub static JUDGED: [Judged];

/// What is done with one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Judgement {
    /// Obeyed.
    Read,
    /// Not looked at; the text says why that is harmless.
    Ignored(&'static str),
    /// Refused when the field is set; the message is taken without it.
    LeftOut(&'static str),
    /// The message is refused when the field is set.
    Rejected(&'static str),
}

/// Message → field → judgement, for every entry that the linker has collected.
pub(crate) fn matrix() -> BTreeMap<String, BTreeMap<String, Judgement>> {
    let mut matrix: BTreeMap<String, BTreeMap<String, Judgement>> = BTreeMap::new();
    for judged in JUDGED {
        let fields = matrix.entry((judged.message)()).or_default();
        let name = |field: &str| field.trim_start_matches("r#").to_owned();
        fields.extend(judged.read.iter().map(|f| (name(f), Judgement::Read)));
        fields.extend(
            judged
                .ignored
                .iter()
                .map(|(f, why)| (name(f), Judgement::Ignored(why))),
        );
        fields.extend(
            judged
                .left_out
                .iter()
                .map(|(f, why)| (name(f), Judgement::LeftOut(why))),
        );
        fields.extend(
            judged
                .rejected
                .iter()
                .map(|(f, why)| (name(f), Judgement::Rejected(why))),
        );
    }
    matrix
}

/// Whether a field was set to something other than its default.
pub(crate) trait IsSet {
    fn is_set(&self) -> bool;
}

impl<T> IsSet for Option<T> {
    fn is_set(&self) -> bool {
        self.is_some()
    }
}
impl<T> IsSet for Vec<T> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}
impl<K, V> IsSet for HashMap<K, V> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}
impl IsSet for String {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

macro_rules! is_set_unless_default {
    ($($kind:ty)*) => {$(
        impl IsSet for $kind {
            fn is_set(&self) -> bool {
                *self != <$kind>::default()
            }
        }
    )*};
}
is_set_unless_default!(bool i32 i64 u32 u64 f32 f64);

/// Opens a message: `take!(cx, message => Type { read { … } ignore "why" { … } leave "why" { … }
/// reject "why" { … } })` binds the fields under `read`, notes those under `ignore` that are set,
/// refuses those under `leave` that are set but not the message, and refuses the message when one
/// under `reject` is set.
macro_rules! take {
    ($cx:expr, $value:expr => $type:path {
        $(read { $($read:ident),* $(,)? })?
        $(ignore $why:literal { $($ignored:ident),* $(,)? })*
        $(leave $loss:literal { $($left:ident),* $(,)? })*
        $(reject $no:literal { $($rejected:ident),* $(,)? })*
    }) => {
        const _: () = {
            #[linkme::distributed_slice(crate::judgement::JUDGED)]
            static ENTRY: crate::judgement::Judged = crate::judgement::Judged {
                message: <$type as prost::Name>::full_name,
                read: &[$($(stringify!($read)),*)?],
                ignored: &[$($((stringify!($ignored), $why),)*)*],
                left_out: &[$($((stringify!($left), $loss),)*)*],
                rejected: &[$($((stringify!($rejected), $no),)*)*],
            };
        };
        let $type { $($($read,)*)? $($($ignored,)*)* $($($left,)*)* $($($rejected,)*)* } = $value;
        let _ = &$cx;
        $($(
            if crate::judgement::IsSet::is_set(&$ignored) {
                $cx.note(<$type as prost::Name>::full_name, stringify!($ignored));
            }
        )*)*
        $($(
            if crate::judgement::IsSet::is_set(&$left) {
                $cx.leave_out(crate::reject::Refusal::at(stringify!($left), concat!("not supported: ", $loss)));
            }
        )*)*
        $($(
            if crate::judgement::IsSet::is_set(&$rejected) {
                return Err(crate::reject::Refusal::at(stringify!($rejected), concat!("not supported: ", $no)));
            }
        )*)*
    };
}
pub(crate) use take;

/// An enum field from its number; an unknown number is refused.
macro_rules! enumerated {
    ($value:expr => $type:path, $field:literal) => {
        <$type>::try_from($value)
            .map_err(|_| crate::reject::Refusal::at($field, format!("unknown value {}", $value)))
    };
}
pub(crate) use enumerated;
