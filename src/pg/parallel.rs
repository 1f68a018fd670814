//! Several processes read one table: the leader, which runs the statement, and parallel workers of the server that read along.
//!
//! This is the server's own way to parallelism (its README.parallel): workers get the leader's snapshot, transaction state, settings and role, so they see what the statement sees, on a standby and in
//! a read-only transaction as well. An error in a worker is an error of the statement, and the end of the statement is the end of its workers, whichever way it ends.
//! Whoever is free takes the next blocks of the table. Workers send messages to the leader, whose meaning is not known here.

use core::ffi::c_void;
use std::marker::PhantomData;

use pgrx::{pg_guard, pg_sys};

use super::relation::Relation;
use super::scan::TableScan;
use crate::error::or_report;
use crate::reading;

/// What is in the shared memory, by key.
mod part {
    /// Length of the request, then its bytes.
    pub(super) const REQUEST: u64 = 1;
    pub(super) const SCAN: u64 = 2;
    /// One queue behind the other.
    pub(super) const QUEUES: u64 = 3;
}

/// Bytes of a worker's queue. Longer messages go through it piece by piece.
const QUEUE: usize = 64 << 10;

/// How many workers the server's planner would want for a sequential scan of this table: more the larger it is, by powers of three of
/// `min_parallel_table_scan_size`, up to `max_parallel_workers_per_gather`.
fn wanted(relation: &Relation) -> usize {
    // SAFETY: the relation is open; settings are plain integers.
    let (blocks, least, most) = unsafe {
        (
            pg_sys::RelationGetNumberOfBlocksInFork(relation.as_ptr(), pg_sys::ForkNumber::MAIN_FORKNUM),
            pg_sys::min_parallel_table_scan_size,
            pg_sys::max_parallel_workers_per_gather,
        )
    };
    let (blocks, least) = (u64::from(blocks), u64::try_from(least).unwrap_or(0));
    let most = usize::try_from(most).unwrap_or(0);
    if blocks < least {
        return 0;
    }
    let mut threshold = least.max(1);
    let mut workers = 1;
    while workers < most && blocks >= threshold * 3 {
        workers += 1;
        threshold *= 3;
    }
    workers.min(most)
}

/// The workers, as the leader has them. While it lives, the transaction can neither write nor begin a savepoint.
pub(crate) struct Team<'a> {
    relation: &'a Relation,
    context: *mut pg_sys::ParallelContext,
    scan: pg_sys::ParallelTableScanDesc,
    /// Queues of workers that may still send.
    queues: Vec<*mut pg_sys::shm_mq_handle>,
}

impl<'a> Team<'a> {
    /// Begins to read a table together. `None` when it is not worth it, or there is no worker to be had: then the caller reads alone. `request` is what the workers are told.
    pub(crate) fn launch(relation: &'a Relation, request: &[u8]) -> Option<Team<'a>> {
        // SAFETY: reads the transaction state.
        if unsafe { pg_sys::IsInParallelMode() } {
            return None;
        }
        let workers = wanted(relation);
        if workers == 0 {
            return None;
        }
        // SAFETY: the order of calls is that of README.parallel; sizes are estimated before and allocated after the segment is made, keys are ours; the relation is open, and a statement always has
        // an active snapshot. Should one of the calls fail, the end of the transaction takes back parallel mode and context (AtEOXact_Parallel).
        unsafe {
            pg_sys::EnterParallelMode();
            let context = pg_sys::CreateParallelContext(
                c"$libdir/audit".as_ptr(),
                c"audit_parallel_main".as_ptr(),
                workers as core::ffi::c_int,
            );
            let mut team = Team { relation, context, scan: std::ptr::null_mut(), queues: Vec::new() };
            let snapshot = pg_sys::GetActiveSnapshot();
            let scan_size = pg_sys::table_parallelscan_estimate(relation.as_ptr(), snapshot);
            let request_size = size_of::<usize>() + request.len();
            for size in [request_size, scan_size, workers * QUEUE] {
                let estimator = &mut (*context).estimator;
                estimator.space_for_chunks += size.next_multiple_of(pg_sys::ALIGNOF_BUFFER as usize);
                estimator.number_of_keys += 1;
            }
            pg_sys::InitializeParallelDSM(context);
            if (*context).seg.is_null() {
                return None;
            }
            let toc = (*context).toc;

            let place = pg_sys::shm_toc_allocate(toc, request_size);
            place.cast::<usize>().write(request.len());
            place.cast::<u8>().add(size_of::<usize>()).copy_from_nonoverlapping(request.as_ptr(), request.len());
            pg_sys::shm_toc_insert(toc, part::REQUEST, place);

            team.scan = pg_sys::shm_toc_allocate(toc, scan_size).cast();
            pg_sys::table_parallelscan_initialize(relation.as_ptr(), team.scan, snapshot);
            pg_sys::shm_toc_insert(toc, part::SCAN, team.scan.cast());

            let queues = pg_sys::shm_toc_allocate(toc, workers * QUEUE);
            for worker in 0..workers {
                let queue = pg_sys::shm_mq_create(queues.cast::<u8>().add(worker * QUEUE).cast(), QUEUE);
                pg_sys::shm_mq_set_receiver(queue, pg_sys::MyProc);
                team.queues.push(pg_sys::shm_mq_attach(queue, (*context).seg, std::ptr::null_mut()));
            }
            pg_sys::shm_toc_insert(toc, part::QUEUES, queues);

            pg_sys::LaunchParallelWorkers(context);
            let launched = usize::try_from((*context).nworkers_launched).unwrap_or(0);
            team.queues.truncate(launched);
            for (worker, queue) in team.queues.iter().enumerate() {
                // Whoever waits for a worker that never comes must learn of it.
                pg_sys::shm_mq_set_handle(*queue, (*(*context).worker.add(worker)).bgwhandle);
            }
            (launched > 0).then_some(team)
        }
    }

    /// How many workers still take part.
    pub(crate) fn workers(&self) -> usize {
        self.queues.len()
    }

    /// The leader's share of the table.
    pub(crate) fn scan(&self) -> TableScan<'a> {
        // SAFETY: initialized in `launch` for this relation; lives as long as the context, hence longer than the caller's borrow of the team.
        unsafe { TableScan::shared(self.relation, self.scan) }
    }

    /// A message that has come; `None` when there is none now.
    pub(crate) fn received(&mut self) -> Option<Vec<u8>> {
        let mut worker = 0;
        while worker < self.queues.len() {
            // SAFETY: the queue is attached.
            match unsafe { receive(self.queues[worker], true) } {
                Received::Message(message) => return Some(message),
                Received::Nothing => worker += 1,
                Received::Ended => drop(self.queues.remove(worker)),
            }
        }
        None
    }

    /// The next message, waiting for it; `None` when all workers have ended.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        // Another worker that waits for room in its queue is emptied when it is its turn.
        while let Some(queue) = self.queues.last() {
            // SAFETY: the queue is attached.
            match unsafe { receive(*queue, false) } {
                Received::Message(message) => return Some(message),
                Received::Nothing | Received::Ended => drop(self.queues.pop()),
            }
        }
        None
    }

    /// Ends well: waits until all workers have ended, and raises what went wrong in them.
    pub(crate) fn finish(self) {
        // SAFETY: the context is live until Drop.
        unsafe { pg_sys::WaitForParallelWorkersToFinish(self.context) }
    }
}

impl Drop for Team<'_> {
    fn drop(&mut self) {
        // An error of the server is on its way: the end of the transaction stops the workers and leaves parallel mode, and must find both.
        if super::error_is_on_its_way() {
            return;
        }
        // SAFETY: made in `launch`, destroyed once. Ends workers that are still at work.
        unsafe {
            pg_sys::DestroyParallelContext(self.context);
            pg_sys::ExitParallelMode();
        }
    }
}

enum Received {
    Message(Vec<u8>),
    Nothing,
    Ended,
}

/// # Safety
/// The queue is attached, and this process is its receiver.
unsafe fn receive(queue: *mut pg_sys::shm_mq_handle, at_once: bool) -> Received {
    let (mut length, mut data) = (0, std::ptr::null_mut());
    // SAFETY: as promised by the caller; the message is valid until the next call, and is copied before.
    unsafe {
        match pg_sys::shm_mq_receive(queue, &mut length, &mut data, at_once) {
            pg_sys::shm_mq_result::SHM_MQ_SUCCESS => {
                Received::Message(std::slice::from_raw_parts(data.cast::<u8>(), length).to_vec())
            }
            pg_sys::shm_mq_result::SHM_MQ_WOULD_BLOCK => Received::Nothing,
            _ => Received::Ended,
        }
    }
}

/// One worker, as it has itself.
pub(crate) struct Member<'a> {
    request: &'a [u8],
    scan: pg_sys::ParallelTableScanDesc,
    queue: *mut pg_sys::shm_mq_handle,
    segment: PhantomData<&'a pg_sys::dsm_segment>,
}

impl<'a> Member<'a> {
    /// # Safety
    /// Called once, by a parallel worker that [`Team::launch`] started, with what the server gave it; the segment stays mapped while the result lives.
    unsafe fn attach(segment: *mut pg_sys::dsm_segment, toc: *mut pg_sys::shm_toc) -> Member<'a> {
        // SAFETY: the leader has put in all parts before it started a worker, and has as many queues as workers.
        unsafe {
            let request = pg_sys::shm_toc_lookup(toc, part::REQUEST, false);
            let length = request.cast::<usize>().read();
            let queues: *mut c_void = pg_sys::shm_toc_lookup(toc, part::QUEUES, false);
            let number = usize::try_from(pg_sys::ParallelWorkerNumber).expect("workers are numbered from 0");
            let queue: *mut pg_sys::shm_mq = queues.cast::<u8>().add(number * QUEUE).cast();
            pg_sys::shm_mq_set_sender(queue, pg_sys::MyProc);
            Member {
                request: std::slice::from_raw_parts(request.cast::<u8>().add(size_of::<usize>()), length),
                scan: pg_sys::shm_toc_lookup(toc, part::SCAN, false).cast(),
                queue: pg_sys::shm_mq_attach(queue, segment, std::ptr::null_mut()),
                segment: PhantomData,
            }
        }
    }

    /// What the leader asks for.
    pub(crate) fn request(&self) -> &'a [u8] {
        self.request
    }

    /// This worker's share of the table, which must be the one that the leader named.
    pub(crate) fn scan<'b>(&self, relation: &'b Relation) -> TableScan<'b> {
        // SAFETY: the leader has initialized it; the segment is mapped until the worker ends. The server itself refuses another relation.
        unsafe { TableScan::shared(relation, self.scan) }
    }

    /// Sends a message, waiting for room. Says false when the leader does not listen any more.
    pub(crate) fn send(&self, message: &[u8]) -> bool {
        // SAFETY: the queue is attached, and this process is its sender.
        let result = unsafe { pg_sys::shm_mq_send(self.queue, message.len(), message.as_ptr().cast(), false, true) };
        result == pg_sys::shm_mq_result::SHM_MQ_SUCCESS
    }
}

#[doc(hidden)]
#[allow(unreachable_pub, reason = "exported by symbol, not by path")]
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn audit_parallel_main(segment: *mut pg_sys::dsm_segment, toc: *mut pg_sys::shm_toc) {
    // SAFETY: the server calls it in a worker that `Team::launch` asked for; the segment stays mapped until the worker ends.
    let member = unsafe { Member::attach(segment, toc) };
    or_report(reading::take_part(&member));
}
