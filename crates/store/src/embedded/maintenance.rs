//! etcd's Maintenance service, as far as it applies to a single member without raft.

use std::{fs::File, io::Read, pin::Pin, sync::Arc};

use etcd_client::{
    AlarmType,
    proto::{
        PbAlarmMember, PbAlarmRequest, PbAlarmResponse, PbDefragmentRequest, PbDefragmentResponse,
        PbDowngradeRequest, PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest,
        PbHashResponse, PbMaintenanceService, PbMoveLeaderRequest, PbMoveLeaderResponse,
        PbSnapshotRequest, PbSnapshotResponse, PbStatusRequest, PbStatusResponse,
    },
};
use futures::Stream;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, task};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{engine::Engine, record::wire, refusal, snapshot, tables::View};

/// The etcd version whose API and behaviour this is; clients derive the available features from it.
const VERSION: &str = "3.5.21";
/// The size of a snapshot message, and how many are buffered for a slow client.
const SNAPSHOT_CHUNK_BYTES: usize = 32 << 10;
const SNAPSHOT_CHUNKS_AHEAD: usize = 16;

pub(super) struct MaintenanceService(pub(super) Arc<Engine>);

#[tonic::async_trait]
impl PbMaintenanceService for MaintenanceService {
    /// The only alarm is NOSPACE. It reflects the current state and needs no disarming: it clears
    /// once space has been freed.
    async fn alarm(
        &self,
        _request: Request<PbAlarmRequest>,
    ) -> Result<Response<PbAlarmResponse>, Status> {
        let no_space =
            PbAlarmMember { member_id: self.0.shared.member_id, alarm: AlarmType::Nospace as i32 };
        let alarms = if self.0.is_full() { vec![no_space] } else { Vec::new() };
        Ok(Response::new(PbAlarmResponse { header: Some(self.0.header()), alarms }))
    }

    async fn status(
        &self,
        _request: Request<PbStatusRequest>,
    ) -> Result<Response<PbStatusResponse>, Status> {
        let header = self.0.header();
        let file_bytes =
            self.0.place.length().map_err(|error| Status::unavailable(error.to_string()))?;
        let revision = u64::try_from(header.revision).unwrap_or_default();
        Ok(Response::new(PbStatusResponse {
            header: Some(header),
            version: VERSION.to_owned(),
            db_size: wire(file_bytes),
            db_size_in_use: wire(self.0.shared.read().index.record_bytes.min(file_bytes)),
            leader: self.0.shared.member_id,
            raft_index: revision,
            raft_applied_index: revision,
            raft_term: header.raft_term,
            errors: if self.0.is_full() { vec!["NOSPACE".to_owned()] } else { Vec::new() },
            ..PbStatusResponse::default()
        }))
    }

    async fn defragment(
        &self,
        _request: Request<PbDefragmentRequest>,
    ) -> Result<Response<PbDefragmentResponse>, Status> {
        self.0.defragment().await?;
        Ok(Response::new(PbDefragmentResponse { header: Some(self.0.header()) }))
    }

    async fn hash(
        &self,
        _request: Request<PbHashRequest>,
    ) -> Result<Response<PbHashResponse>, Status> {
        let (view, _) = self.view();
        let header = Some(self.0.shared.header(view.revision));
        let hash = hash(view, u64::MAX).await?;
        Ok(Response::new(PbHashResponse { header, hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<PbHashKvRequest>,
    ) -> Result<Response<PbHashKvResponse>, Status> {
        let (view, compacted) = self.view();
        let current = view.revision;
        let revision = match u64::try_from(request.into_inner().revision) {
            Err(_) | Ok(0) => current,
            Ok(revision) if revision > current => return Err(refusal::future_revision()),
            Ok(revision) if revision < compacted => return Err(refusal::compacted()),
            Ok(revision) => revision,
        };
        Ok(Response::new(PbHashKvResponse {
            header: Some(self.0.shared.header(current)),
            hash: hash(view, revision).await?,
            compact_revision: wire(compacted),
            hash_revision: wire(revision),
        }))
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<PbSnapshotResponse, Status>> + Send>>;

    async fn snapshot(
        &self,
        _request: Request<PbSnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let engine = self.0.clone();
        let (sender, receiver) = mpsc::channel(SNAPSHOT_CHUNKS_AHEAD);
        task::spawn_blocking(move || {
            if let Err(status) = send_snapshot(&engine, &sender) {
                sender.blocking_send(Err(status)).ok();
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn move_leader(
        &self,
        _request: Request<PbMoveLeaderRequest>,
    ) -> Result<Response<PbMoveLeaderResponse>, Status> {
        Err(refusal::bad_leader_transferee())
    }

    async fn downgrade(
        &self,
        _request: Request<PbDowngradeRequest>,
    ) -> Result<Response<PbDowngradeResponse>, Status> {
        Err(Status::unimplemented("etcdserver: the embedded store has no older version"))
    }
}

impl MaintenanceService {
    fn view(&self) -> (Arc<View>, u64) {
        let state = self.0.shared.read();
        (state.view(), state.index.compacted)
    }
}

/// A checksum of the history up to a revision, only comparable within this implementation.
async fn hash(view: Arc<View>, revision: u64) -> Result<u32, Status> {
    let hash = task::spawn_blocking(move || -> Result<u32, redb::Error> {
        let mut hash = Sha256::new();
        for entry in view.history.range((0, 0)..=(revision, u32::MAX))? {
            let (position, record) = entry?;
            let (main, sub) = position.value();
            hash.update(main.to_le_bytes());
            hash.update(sub.to_le_bytes());
            hash.update(record.value());
        }
        let digest = hash.finalize();
        Ok(u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]))
    });
    let hash = hash.await.map_err(|error| Status::internal(error.to_string()))?;
    hash.map_err(|error| refusal::storage(&error))
}

type SnapshotSender = mpsc::Sender<Result<PbSnapshotResponse, Status>>;

/// Sends the file, then its checksum. Stops if the client disconnects.
fn send_snapshot(engine: &Engine, sender: &SnapshotSender) -> Result<(), Status> {
    let directory = engine.place.path.parent().expect("the store's file is in a directory");
    let (mut file, bytes) =
        snapshot::write(&engine.shared, directory).map_err(|error| refusal::storage(&error))?;
    let mut left = bytes;
    let mut checksum = Sha256::new();
    while left > 0 {
        let blob =
            chunk(&mut file, left).map_err(|error| Status::unavailable(error.to_string()))?;
        checksum.update(&blob);
        left -= blob.len() as u64;
        if !send(engine, sender, blob, left) {
            return Ok(());
        }
    }
    send(engine, sender, checksum.finalize().to_vec(), 0);
    Ok(())
}

fn chunk(file: &mut File, left: u64) -> std::io::Result<Vec<u8>> {
    let mut blob = vec![0; SNAPSHOT_CHUNK_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX))];
    file.read_exact(&mut blob)?;
    Ok(blob)
}

fn send(engine: &Engine, sender: &SnapshotSender, blob: Vec<u8>, remaining_bytes: u64) -> bool {
    let header = Some(engine.header());
    let response =
        PbSnapshotResponse { header, remaining_bytes, blob, version: VERSION.to_owned() };
    sender.blocking_send(Ok(response)).is_ok()
}
