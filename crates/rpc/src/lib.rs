//! The gRPC layer of Skiff's components: code generated from `proto/`, TLS channels, identities
//! from client certificates, and the mapping between Kubernetes' `Status` and gRPC's.
//!
//! Entry points: [`api_v1`], [`kubelet_v1`], [`scheduler_v1`], [`deviceplugin_v1beta1`], [`podresources_v1`] and
//! [`kms_v2`] (generated), [`tls`], [`codec`], [`incoming`] and [`status`]. It must not know any component, the store, or a Kubernetes kind.

pub mod codec;
pub mod incoming;
pub mod live;
pub mod status;
pub mod tls;

/// The generated modules, nested like the proto packages.
mod skiff {
    pub mod api {
        pub mod v1 {
            #![allow(clippy::all)]
            tonic::include_proto!("skiff.api.v1");
        }
    }
    pub mod kubelet {
        pub mod v1 {
            #![allow(clippy::all)]
            tonic::include_proto!("skiff.kubelet.v1");
        }
    }
    pub mod scheduler {
        pub mod v1 {
            #![allow(clippy::all)]
            tonic::include_proto!("skiff.scheduler.v1");
        }
    }
}

/// Messages, client and server of `skiff.api.v1`.
pub use skiff::api::v1 as api_v1;
/// Messages, client and server of `skiff.kubelet.v1`.
pub use skiff::kubelet::v1 as kubelet_v1;
/// Messages, client and server of `skiff.scheduler.v1`.
pub use skiff::scheduler::v1 as scheduler_v1;

/// Messages, client and server between a kubelet and device plugins.
pub mod deviceplugin_v1beta1 {
    #![allow(clippy::all)]
    tonic::include_proto!("v1beta1");
}

/// Messages, client and server between a kubelet and agents that monitor devices.
pub mod podresources_v1 {
    #![allow(clippy::all)]
    tonic::include_proto!("v1");
}

/// Messages, client and server of plugins that hold the keys of what is stored encrypted.
pub mod kms_v2 {
    #![allow(clippy::all)]
    tonic::include_proto!("v2");
}

/// The encoded `FileDescriptorSet` of all services, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/skiff.bin"));

/// The largest gRPC message that any Skiff service accepts or sends, in bytes. The apiserver limits
/// objects to 3 MiB and keeps the pages of a list below this.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
