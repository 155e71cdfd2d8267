//! Two macros that declare the shapes users write.
//!
//! `message!` declares a struct and how it is read: every field is known by its camelCase name, its snake_case name, or by an
//! explicit one (`field as "clusterIPs"`). A struct declared `partial` skips fields that it doesn't
//! list, because somebody else checks them; all others report them. `names!` declares an enum by
//! the names of proto3 JSON and their numbers.

macro_rules! message {
    (@known partial $reader:ident $key:ident $names:expr) => {
        let _ = (&$key, $names);
    };
    (@known full $reader:ident $key:ident $names:expr) => {
        $reader.unknown_field($key, $names);
    };
    ($(#[$meta:meta])* partial struct $name:ident { $($body:tt)* }) => {
        message!(@define partial $(#[$meta])* $name { $($body)* });
    };
    ($(#[$meta:meta])* struct $name:ident { $($body:tt)* }) => {
        message!(@define full $(#[$meta])* $name { $($body)* });
    };
    (@define $mode:ident $(#[$meta:meta])* $name:ident {
        $( $(#[$field_meta:meta])* $field:ident $(as $json:literal)? : $type:ty ),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        impl $crate::read::Read for $name {
            fn read(value: &serde_json::Value, reader: &mut $crate::read::Reader) -> Option<Self> {
                const NAMES: &[$crate::read::FieldName] = &[
                    $( $crate::read::FieldName { snake: stringify!($field), json: &[$($json)?] } ),*
                ];
                let entries = reader.object(value)?;
                #[allow(unused_mut)]
                let mut message = Self::default();
                for (key, value) in entries {
                    #[allow(unused_mut, unused_assignments)]
                    let mut known = false;
                    $(
                        if !known && ($crate::read::FieldName { snake: stringify!($field), json: &[$($json)?] }).is(key) {
                            known = true;
                            reader.field(key, value, &mut message.$field);
                        }
                    )*
                    if !known {
                        message!(@known $mode reader key NAMES);
                    }
                }
                Some(message)
            }

            fn shape() -> $crate::read::Shape {
                const FIELDS: &[$crate::read::FieldShape] = &[
                    $( (
                        $crate::read::FieldName { snake: stringify!($field), json: &[$($json)?] },
                        <$type as $crate::read::Read>::shape,
                    ) ),*
                ];
                $crate::read::Shape::Message($crate::read::MessageShape {
                    module: module_path!(),
                    name: stringify!($name),
                    fields: FIELDS,
                })
            }
        }
    };
}

macro_rules! names {
    ($(#[$meta:meta])* enum $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $number:literal $text:literal ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )*
        }

        impl $name {
            /// The name in proto3 JSON.
            pub fn name(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }

            /// Every value, by number.
            pub const ALL: &'static [(i64, &'static str, Self)] = &[ $( ($number, $text, Self::$variant) ),* ];
        }

        impl Default for $name {
            fn default() -> Self {
                #[expect(clippy::indexing_slicing, reason = "a constant: the compiler would say so")]
                const FIRST: $name = { let (_, _, first) = $name::ALL[0]; first };
                FIRST
            }
        }

        impl $crate::read::Read for $name {
            fn read(value: &serde_json::Value, reader: &mut $crate::read::Reader) -> Option<Self> {
                reader.name(value, Self::ALL)
            }
        }
    };
}
