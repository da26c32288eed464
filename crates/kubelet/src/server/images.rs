//! Loading images from an archive that the caller sends.

use futures::TryStreamExt;
use rpc::kubelet_v1::LoadImageRequest;
use tokio_util::io::StreamReader;
use tonic::{Status, Streaming};

use super::service::Service;
use crate::image::ImageError;

impl Service {
    pub(super) async fn load(
        &self,
        chunks: Streaming<LoadImageRequest>,
    ) -> Result<Vec<String>, Status> {
        let bytes = chunks.map_ok(|chunk| chunk.data).map_err(std::io::Error::other);
        let loaded = self.context.images.load_archive(StreamReader::new(bytes)).await;
        loaded.map_err(|error| match error {
            ImageError::Archive { .. } => Status::invalid_argument(error.to_string()),
            ImageError::Unavailable { .. } => Status::unavailable(error.to_string()),
            _ => Status::internal(error.to_string()),
        })
    }
}
