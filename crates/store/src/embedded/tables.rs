//! The tables of the file, and how they are opened and loaded.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{
    Builder, Database, Error, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition,
};

use super::{
    index::{Index, Position},
    record::Record,
};

/// The key of a record: revision and number within the revision.
pub(super) type HistoryKey = (u64, u32);

/// All versions of all keys, by position in history: see [`Record`].
pub(super) const HISTORY: TableDefinition<'static, HistoryKey, &'static [u8]> =
    TableDefinition::new("history");
/// Granted leases: id, time to live in seconds.
pub(super) const LEASES: TableDefinition<'static, i64, u64> = TableDefinition::new("leases");
/// Numbers by name: the `META_*` constants.
pub(super) const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");

/// The version of the table layout; files with another version are rejected.
const LAYOUT: u64 = 1;
const META_LAYOUT: &str = "layout";
const META_CLUSTER_ID: &str = "cluster-id";
const META_MEMBER_ID: &str = "member-id";
/// The compacted revision, set when a compaction is requested.
pub(super) const META_COMPACTED: &str = "compacted";
/// The compacted revision whose records have been deleted.
pub(super) const META_PRUNED: &str = "pruned";

/// The access mode of a new file.
const FILE_MODE: u32 = 0o600;
/// The number of records that a copy writes per transaction, and its page cache.
const COPY_RECORDS: usize = 4_096;
const COPY_CACHE_BYTES: usize = 8 << 20;

/// The revision of an empty store, as in etcd.
const FIRST_REVISION: u64 = 1;

/// A durable state of the store: a revision, and the records up to it.
pub(super) struct View {
    pub(super) revision: u64,
    pub(super) history: ReadOnlyTable<HistoryKey, &'static [u8]>,
}

impl View {
    pub(super) fn open(database: &Database, revision: u64) -> Result<View, Error> {
        let history = database.begin_read()?.open_table(HISTORY)?;
        Ok(View { revision, history })
    }
}

/// Reads one record and converts it.
pub(super) fn fetch<T>(
    history: &impl ReadableTable<HistoryKey, &'static [u8]>,
    position: Position,
    convert: impl FnOnce(Record<'_>) -> T,
) -> Result<T, Error> {
    let guard = history.get((position.main, position.sub))?;
    let guard = guard.ok_or_else(|| {
        Error::Corrupted(format!("the index contains {position:?}, which is not stored"))
    })?;
    Ok(convert(Record::decode(guard.value())?))
}

/// The contents of a file that are kept in memory.
pub(super) struct Loaded {
    pub(super) database: Database,
    pub(super) index: Index,
    pub(super) revision: u64,
    /// Whether records of compacted versions remain to be deleted.
    pub(super) pruning: bool,
    pub(super) leases: Vec<(i64, u64)>,
    pub(super) cluster_id: u64,
    pub(super) member_id: u64,
}

/// Where the file is, and how it is accessed.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) cache_bytes: usize,
    /// In place of the file.
    pub(super) device: Option<Arc<dyn StorageBackend>>,
}

impl Place {
    /// The length of the file in bytes.
    pub(super) fn length(&self) -> io::Result<u64> {
        match &self.device {
            Some(device) => device.len(),
            None => Ok(std::fs::metadata(&self.path)?.len()),
        }
    }
}

/// A device that outlives the databases that are opened on it.
#[derive(Debug)]
struct SharedDevice(Arc<dyn StorageBackend>);

impl StorageBackend for SharedDevice {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// Opens the file, creating it if it is missing and repairing it after a crash.
fn open(place: &Place) -> Result<Database, Error> {
    match &place.device {
        Some(device) => {
            let mut builder = Builder::new();
            builder.set_cache_size(place.cache_bytes);
            Ok(builder.create_with_backend(SharedDevice(device.clone()))?)
        }
        None => open_file(&place.path, place.cache_bytes),
    }
}

pub(super) fn open_file(path: &Path, cache_bytes: usize) -> Result<Database, Error> {
    // The store contains secrets: no other user may read it.
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)?;
    Ok(Builder::new().set_cache_size(cache_bytes).create(path)?)
}

/// Reopens the file after a failure, discarding whatever a commit that was reported as failed may
/// have left in it.
pub(super) fn open_at(place: &Place, revision: u64) -> Result<Database, Error> {
    let database = open(place)?;
    let write = database.begin_write()?;
    write.open_table(HISTORY)?.retain_in((revision + 1, 0)..=(u64::MAX, u32::MAX), |_, _| false)?;
    write.commit()?;
    Ok(database)
}

/// Opens the file and builds the index. `fresh_id` generates the ids of a new store.
pub(super) fn load(place: &Place, mut fresh_id: impl FnMut() -> u64) -> Result<Loaded, Error> {
    let database = open(place)?;
    let write = database.begin_write()?;
    write.open_table(HISTORY)?;
    write.open_table(LEASES)?;
    let (cluster_id, member_id, compacted, pruned);
    {
        let mut meta = write.open_table(META)?;
        let mut number = |name: &str, initial: &mut dyn FnMut() -> u64| -> Result<u64, Error> {
            if let Some(known) = meta.get(name)? {
                return Ok(known.value());
            }
            let initial = initial();
            meta.insert(name, initial)?;
            Ok(initial)
        };
        let layout = number(META_LAYOUT, &mut || LAYOUT)?;
        if layout != LAYOUT {
            return Err(Error::Corrupted(format!(
                "the file has layout {layout}, but this version supports {LAYOUT}"
            )));
        }
        cluster_id = number(META_CLUSTER_ID, &mut fresh_id)?;
        member_id = number(META_MEMBER_ID, &mut fresh_id)?;
        compacted = number(META_COMPACTED, &mut || 0)?;
        pruned = number(META_PRUNED, &mut || 0)?;
    }
    write.commit()?;

    let read = database.begin_read()?;
    let mut index = Index::default();
    index.compacted = compacted;
    let mut revision = FIRST_REVISION;
    for entry in read.open_table(HISTORY)?.iter()? {
        let (key, value) = entry?;
        let (main, sub) = key.value();
        let record = Record::decode(value.value())?;
        index.insert(record.key, record.version_at(Position { main, sub }));
        revision = main;
    }
    let mut leases = Vec::new();
    for entry in read.open_table(LEASES)?.iter()? {
        let (id, ttl) = entry?;
        leases.push((id.value(), ttl.value()));
    }
    Ok(Loaded {
        database,
        index,
        revision,
        pruning: pruned < compacted,
        leases,
        cluster_id,
        member_id,
    })
}

/// Writes a view to a new file: history, leases and ids.
pub(super) fn copy(
    path: &Path,
    view: &View,
    compacted: u64,
    leases: &[(i64, u64)],
    (cluster_id, member_id): (u64, u64),
) -> Result<(), Error> {
    let database =
        open(&Place { path: path.to_owned(), cache_bytes: COPY_CACHE_BYTES, device: None })?;
    let mut next = Some((0, 0));
    while let Some(from) = next.take() {
        let write = database.begin_write()?;
        {
            let mut history = write.open_table(HISTORY)?;
            for (copied, entry) in view.history.range(from..)?.enumerate() {
                let (position, record) = entry?;
                if copied == COPY_RECORDS {
                    next = Some(position.value());
                    break;
                }
                history.insert(position.value(), record.value())?;
            }
        }
        write.commit()?;
    }
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(LEASES)?;
        for (id, ttl) in leases {
            table.insert(id, ttl)?;
        }
        let mut meta = write.open_table(META)?;
        meta.insert(META_LAYOUT, LAYOUT)?;
        meta.insert(META_CLUSTER_ID, cluster_id)?;
        meta.insert(META_MEMBER_ID, member_id)?;
        meta.insert(META_COMPACTED, compacted)?;
        meta.insert(META_PRUNED, 0)?;
    }
    write.commit()?;
    Ok(database.close()?)
}
