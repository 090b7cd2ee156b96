//! One publishes, a number of processes receive every message: the publisher waits for the slowest.
//! `connect` alone is run; it starts its readers itself. Who waits looks again and again, and lets
//! others run meanwhile: there are more readers than processors.
use crate::{config_for, Job, Result, END_WORD, IN_FLIGHT, MESSAGES_MIN};
use iceoryx2::prelude::*;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

/// How many read: the last part of the job's name.
fn reader_count(job: &Job) -> Result<usize> {
    Ok(job.name.rsplit('-').next().unwrap_or("").parse()?)
}

type Service =
    iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, [u8], ()>;

fn in_flight(job: &Job) -> usize {
    (IN_FLIGHT / job.size).clamp(2, 512)
}

fn open(job: &Job) -> Result<(Node<ipc::Service>, Service)> {
    let node = NodeBuilder::new().config(&config_for(&job.address)?).create::<ipc::Service>()?;
    let count = reader_count(job)?;
    let service = node
        .service_builder(&"topic".try_into()?)
        .publish_subscribe::<[u8]>()
        .enable_safe_overflow(false)
        .history_size(0)
        .max_publishers(1)
        .max_subscribers(count)
        .max_nodes(count + 1)
        .subscriber_max_buffer_size(in_flight(job))
        .subscriber_max_borrowed_samples(1)
        .open_or_create()?;
    Ok((node, service))
}

pub fn run(job: &Job) -> Result<()> {
    if job.listens {
        read(job)
    } else {
        publish(job)
    }
}

fn read(job: &Job) -> Result<()> {
    let (_node, service) = open(job)?;
    let subscriber = service.subscriber_builder().buffer_size(in_flight(job)).create()?;
    println!("ready");
    let mut copy = vec![0u8; job.size];
    let last = job.size - 4;
    for _phase in 0..2 {
        let mut expected = 0;
        loop {
            let Some(sample) = subscriber.receive()? else {
                std::thread::yield_now();
                continue;
            };
            copy.copy_from_slice(sample.payload());
            black_box(copy.as_mut_ptr());
            let word = u32::from_ne_bytes(copy[last..].try_into()?);
            if word == END_WORD {
                break;
            }
            if word != expected {
                return Err(format!("expected word {expected}, got {word}").into());
            }
            expected += 1;
        }
        println!("ended");
    }
    // Its slots may still be looked at: until standard input is closed.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

struct Reader {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Reader {
    fn start() -> Result<Reader> {
        let args = std::env::args().skip(2);
        let mut child = Command::new(std::env::current_exe()?)
            .arg("listen")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Reader { child, lines })
    }

    fn says(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        if line.trim() != word {
            return Err(format!("a reader said '{}', not '{word}'", line.trim()).into());
        }
        Ok(())
    }
}

fn publish(job: &Job) -> Result<()> {
    let (_node, service) = open(job)?;
    let publisher = service
        .publisher_builder()
        .initial_max_slice_len(job.size)
        .max_loaned_samples(1)
        .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        .create()?;
    let count = reader_count(job)?;
    let mut readers = (0..count).map(|_| Reader::start()).collect::<Result<Vec<_>>>()?;
    readers.iter_mut().try_for_each(|reader| reader.says("ready"))?;
    let mut source: Vec<u8> = (0..job.size).map(|i| i as u8).collect();
    let last = job.size - 4;
    let mut send = |word: u32| -> Result<()> {
        source[last..].copy_from_slice(&word.to_ne_bytes());
        let sample = publisher.loan_slice_uninit(source.len())?;
        sample.write_from_slice(&source).send()?;
        Ok(())
    };
    for (phase, run) in [job.warm, job.run].into_iter().enumerate() {
        let start = Instant::now();
        let mut sequence = 0;
        while sequence < MESSAGES_MIN || start.elapsed() < run {
            send(sequence)?;
            sequence += 1;
        }
        send(END_WORD)?;
        readers.iter_mut().try_for_each(|reader| reader.says("ended"))?;
        if phase == 1 {
            let seconds = start.elapsed().as_secs_f64();
            println!("{{\"n\":{sequence},\"seconds\":{seconds}}}");
        }
    }
    for mut reader in readers {
        drop(reader.child.stdin.take());
        reader.child.wait()?;
    }
    Ok(())
}
