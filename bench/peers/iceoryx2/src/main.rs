//! iceoryx2, publish and subscribe of byte slices: one service each way, both sides spinning.
//! The command line and the line of JSON are those of every program here (bench/README.md).
mod requests;
mod topics;

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use std::error::Error;
use std::hint::black_box;
use std::io::Read;
use std::time::{Duration, Instant};

const END_WORD: u32 = u32::MAX;
const SAMPLES_MAX: usize = 2_000_000;
/// As much under way as the C program has, as far as whole messages allow.
const IN_FLIGHT: usize = 2 << 20;

/// Even a phase too short for it touches each slot once.
const MESSAGES_MIN: u32 = 4;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Job {
    listens: bool,
    name: String,
    size: usize,
    warm: Duration,
    run: Duration,
    address: String,
}

fn parse_job() -> Result<Job> {
    let a: Vec<String> = std::env::args().collect();
    if a.len() != 7 {
        return Err("usage: listen|connect JOB SIZE WARM_MS RUN_MS ADDRESS".into());
    }
    Ok(Job {
        listens: a[1] == "listen",
        name: a[2].clone(),
        size: a[3].parse()?,
        warm: Duration::from_millis(a[4].parse()?),
        run: Duration::from_millis(a[5].parse()?),
        address: a[6].clone(),
    })
}

struct Ends {
    publisher: Publisher<ipc::Service, [u8], ()>,
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    source: Vec<u8>,
    copy: Vec<u8>,
    // Dropped last: ports need their node.
    _node: Node<ipc::Service>,
}

/// Everything that iceoryx2 puts into the file system carries the address's last part as prefix,
/// so that the harness can remove what a killed program left.
fn config_for(address: &str) -> Result<Config> {
    let path = std::path::Path::new(address);
    let name = path.file_name().and_then(|n| n.to_str()).ok_or("bad address")?;
    let mut config = Config::default();
    config.global.prefix = FileName::new(format!("{name}_").as_bytes())?;
    config.global.set_root_path(&Path::new(format!("{address}.d").as_bytes())?);
    Ok(config)
}

fn open(job: &Job) -> Result<Ends> {
    let node = NodeBuilder::new().config(&config_for(&job.address)?).create::<ipc::Service>()?;
    let in_flight = (IN_FLIGHT / job.size).clamp(2, 512);
    let service = |name: &str| -> Result<_> {
        Ok(node
            .service_builder(&name.try_into()?)
            .publish_subscribe::<[u8]>()
            .enable_safe_overflow(false)
            .history_size(0)
            .max_publishers(1)
            .max_subscribers(1)
            .subscriber_max_buffer_size(in_flight)
            .subscriber_max_borrowed_samples(1)
            .open_or_create()?)
    };
    let (there, back) = (service("there")?, service("back")?);
    let (mine, theirs) = if job.listens { (back, there) } else { (there, back) };
    let publisher = mine
        .publisher_builder()
        .initial_max_slice_len(job.size)
        .max_loaned_samples(1)
        .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        .create()?;
    let subscriber = theirs.subscriber_builder().buffer_size(in_flight).create()?;
    if job.listens {
        println!("ready");
    } else {
        let deadline = Instant::now() + Duration::from_secs(5);
        while mine.dynamic_config().number_of_subscribers() == 0 {
            if Instant::now() > deadline {
                return Err("no subscriber".into());
            }
        }
    }
    let source: Vec<u8> = (0..job.size).map(|i| i as u8).collect();
    Ok(Ends { publisher, subscriber, copy: source.clone(), source, _node: node })
}

impl Ends {
    #[inline]
    fn send(&mut self, word: u32) -> Result<()> {
        let last = self.source.len() - 4;
        self.source[last..].copy_from_slice(&word.to_ne_bytes());
        let sample = self.publisher.loan_slice_uninit(self.source.len())?;
        sample.write_from_slice(&self.source).send()?;
        Ok(())
    }

    #[inline]
    fn try_receive(&mut self) -> Result<Option<u32>> {
        let Some(sample) = self.subscriber.receive()? else { return Ok(None) };
        self.copy.copy_from_slice(sample.payload());
        black_box(self.copy.as_mut_ptr());
        let last = self.copy.len() - 4;
        Ok(Some(u32::from_ne_bytes(self.copy[last..].try_into()?)))
    }

    #[inline]
    fn receive(&mut self) -> Result<u32> {
        loop {
            if let Some(word) = self.try_receive()? {
                return Ok(word);
            }
        }
    }

    fn trip(&mut self, word: u32) -> Result<()> {
        self.send(word)?;
        let got = self.receive()?;
        if got != word {
            return Err(format!("expected word {word}, got {got}").into());
        }
        Ok(())
    }

    fn echo(&mut self) -> Result<()> {
        loop {
            let word = self.receive()?;
            self.send(word)?;
            if word == END_WORD {
                return Ok(());
            }
        }
    }

    /// What is sent before the other side's subscriber has mapped this publisher's memory is
    /// dropped once the buffer is full: only after an answer is the way open.
    fn greet(&mut self, listens: bool) -> Result<()> {
        if !listens {
            self.send(0)?;
        }
        self.receive()?;
        if listens {
            self.send(0)?;
        }
        Ok(())
    }

    fn send_phase(&mut self, run: Duration) -> Result<u32> {
        let interval = match self.source.len() {
            0..=8192 => 1024,
            8193..=1_048_576 => 16,
            _ => 1,
        };
        let until = Instant::now() + run;
        let mut sequence = 0;
        while sequence < MESSAGES_MIN || Instant::now() < until {
            for _ in 0..interval {
                self.send(sequence)?;
                sequence += 1;
            }
        }
        self.send(END_WORD)?;
        self.receive()?;
        Ok(sequence)
    }

    fn receive_phase(&mut self) -> Result<()> {
        let mut expected = 0;
        loop {
            let word = self.receive()?;
            if word == END_WORD {
                return self.send(word);
            }
            if word != expected {
                return Err(format!("expected word {expected}, got {word}").into());
            }
            expected += 1;
        }
    }
}

fn measure_trips(ends: &mut Ends, job: &Job) -> Result<()> {
    let mut word = 0;
    let mut samples: Vec<u32> = vec![0; SAMPLES_MAX];
    let mut n = 0;
    for (phase, run) in [job.warm, job.run].into_iter().enumerate() {
        let until = Instant::now() + run;
        n = 0;
        loop {
            let start = Instant::now();
            ends.trip(word)?;
            samples[n] = start.elapsed().as_nanos().min(u32::MAX as u128) as u32;
            n += 1;
            word = (word + 1) % END_WORD;
            if start > until || (phase == 1 && n == SAMPLES_MAX) {
                break;
            }
            n %= SAMPLES_MAX;
        }
    }
    samples.truncate(n);
    print_samples(samples, None);
    ends.trip(END_WORD)
}

/// The median cost of one empty interval is taken off each sample.
fn print_samples(mut samples: Vec<u32>, seconds: Option<f64>) {
    let mut costs: Vec<u32> = (0..1001)
        .map(|_| {
            let start = Instant::now();
            start.elapsed().as_nanos() as u32
        })
        .collect();
    costs.sort_unstable();
    samples.iter_mut().for_each(|s| *s = s.saturating_sub(costs[500]));
    samples.sort_unstable();
    let mean = samples.iter().map(|s| *s as f64).sum::<f64>() / samples.len() as f64;
    let at = |q: f64| samples[(q * (samples.len() - 1) as f64) as usize];
    let rate = seconds.map_or(String::new(), |s| format!(",\"seconds\":{s}"));
    println!(
        "{{\"n\":{},\"mean\":{:.1},\"p50\":{},\"p99\":{},\"p999\":{},\"max\":{}{rate}}}",
        samples.len(),
        mean,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

fn main() -> Result<()> {
    set_log_level(LogLevel::Error);
    let job = parse_job()?;
    if job.name.starts_with("requests") {
        return requests::run(&job);
    }
    if job.name.starts_with("topic") {
        return topics::run(&job);
    }
    let mut ends = open(&job)?;
    ends.greet(job.listens)?;
    match (job.listens, job.name.starts_with("round-trip")) {
        (true, true) => ends.echo()?,
        (true, false) => {
            ends.receive_phase()?;
            ends.receive_phase()?;
        }
        (false, true) => measure_trips(&mut ends, &job)?,
        (false, false) => {
            ends.send_phase(job.warm)?;
            let start = Instant::now();
            let sent = ends.send_phase(job.run)?;
            println!("{{\"n\":{},\"seconds\":{}}}", sent, start.elapsed().as_secs_f64());
        }
    }
    if job.listens {
        // The answer lies in this process's memory and goes with it: until the harness closes
        // standard input, the other side may not have read it.
        std::io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(())
}
