//! One file a command: its `Args`, its `run`, its tests.

pub mod apply;
pub mod completions;
pub mod control;
pub mod create;
pub mod delete;
pub mod describe;
pub mod down;
pub mod events;
pub mod exec;
pub mod get;
pub mod kubeconfig;
pub mod logs;
pub mod proxy;
pub mod proxy_config;
pub mod proxy_status;
pub mod render;
pub mod rollout;
pub mod scale;
pub mod status;
pub mod up;
pub mod validate;
pub mod version;
pub mod wait;
