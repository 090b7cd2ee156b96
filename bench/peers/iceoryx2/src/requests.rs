//! Requests and responses of byte slices, a number of them under way, both sides spinning. The
//! answer to a request is its own bytes.
use crate::{config_for, print_samples, Job, Result, SAMPLES_MAX};
use iceoryx2::pending_response::PendingResponse;
use iceoryx2::port::client::Client;
use iceoryx2::prelude::*;
use std::hint::black_box;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Pending = PendingResponse<ipc::Service, [u8], (), [u8], ()>;

struct Lane {
    pending: Pending,
    sent: Instant,
    word: u32,
}

struct Asker {
    client: Client<ipc::Service, [u8], (), [u8], ()>,
    source: Vec<u8>,
    copy: Vec<u8>,
    word: u32,
}

impl Asker {
    fn ask(&mut self) -> Result<Lane> {
        self.word = self.word.wrapping_add(1);
        let last = self.source.len() - 4;
        self.source[last..].copy_from_slice(&self.word.to_ne_bytes());
        let sent = Instant::now();
        let request = self.client.loan_slice_uninit(self.source.len())?;
        let pending = request.write_from_slice(&self.source).send()?;
        Ok(Lane { pending, sent, word: self.word })
    }

    /// Whether the lane's response has come: read in full, and right.
    fn answered(&mut self, lane: &Lane) -> Result<bool> {
        let Some(response) = lane.pending.receive()? else { return Ok(false) };
        self.copy.copy_from_slice(response.payload());
        black_box(self.copy.as_mut_ptr());
        let last = self.copy.len() - 4;
        let word = u32::from_ne_bytes(self.copy[last..].try_into()?);
        if word != lane.word {
            return Err(format!("expected word {}, got {word}", lane.word).into());
        }
        Ok(true)
    }

    fn phase(&mut self, lanes: &mut [Lane], run: Duration, samples: &mut Vec<u32>) -> Result<f64> {
        let start = Instant::now();
        samples.clear();
        while start.elapsed() < run && samples.len() < SAMPLES_MAX {
            for lane in lanes.iter_mut() {
                if self.answered(lane)? {
                    samples.push(lane.sent.elapsed().as_nanos().min(u32::MAX as u128) as u32);
                    *lane = self.ask()?;
                }
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

pub fn run(job: &Job) -> Result<()> {
    let in_flight: usize = job.name.rsplit('-').next().unwrap_or("").parse()?;
    let node = NodeBuilder::new().config(&config_for(&job.address)?).create::<ipc::Service>()?;
    let service = node
        .service_builder(&"requests".try_into()?)
        .request_response::<[u8], [u8]>()
        .enable_safe_overflow_for_requests(false)
        .enable_safe_overflow_for_responses(false)
        // A lane asks again before it lets its last response go.
        .max_active_requests_per_client(in_flight + 1)
        .max_loaned_requests(1)
        .max_response_buffer_size(1)
        .max_servers(1)
        .max_clients(1)
        .open_or_create()?;
    if job.listens {
        let server = service.server_builder().initial_max_slice_len(job.size).create()?;
        println!("ready");
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            told.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) {
            while let Some(request) = server.receive()? {
                let payload = request.payload();
                let response = request.loan_slice_uninit(payload.len())?;
                // Who asked may be gone by now.
                let _ = response.write_from_slice(payload).send();
            }
        }
        return Ok(());
    }
    let client = service.client_builder().initial_max_slice_len(job.size).create()?;
    let source: Vec<u8> = (0..job.size).map(|i| i as u8).collect();
    let mut asker = Asker { client, copy: source.clone(), source, word: 0 };
    let mut lanes = (0..in_flight).map(|_| asker.ask()).collect::<Result<Vec<_>>>()?;
    let mut samples = Vec::with_capacity(SAMPLES_MAX);
    asker.phase(&mut lanes, job.warm, &mut samples)?;
    let seconds = asker.phase(&mut lanes, job.run, &mut samples)?;
    print_samples(samples, Some(seconds));
    Ok(())
}
