import io.aeron.Aeron;
import io.aeron.ExclusivePublication;
import io.aeron.Image;
import io.aeron.ImageFragmentAssembler;
import io.aeron.Publication;
import io.aeron.Subscription;
import io.aeron.driver.MediaDriver;
import io.aeron.driver.ThreadingMode;
import io.aeron.logbuffer.BufferClaim;
import io.aeron.logbuffer.FragmentHandler;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.function.IntConsumer;
import org.agrona.concurrent.UnsafeBuffer;

/**
 * Aeron IPC: one stream each way, both sides spinning. The media driver runs inside the listener
 * with one thread that backs off, because a third spinning thread would take a core of two. The
 * command line and the line of JSON are those of every program here (bench/README.md).
 */
public final class Peer {
  private static final int END_WORD = -1;
  private static final int SAMPLES_MAX = 2_000_000;
  private static final int POLL_LIMIT = 16;
  /** The largest of Aeron: small messages are then never cut. */
  private static final int MTU = 65504;
  /** The default: flow control runs in the driver, so what is under way must last for its sleep. */
  private static final int TERM_BYTES = 64 << 20;

  private final boolean listens;
  private final int size;
  private final UnsafeBuffer source;
  private final UnsafeBuffer copy;
  private final BufferClaim claim = new BufferClaim();
  private final ExclusivePublication publication;
  private final Image image;
  private IntConsumer onWord = word -> {};
  private final FragmentHandler handler;
  private int lastWord;
  private boolean ended;

  private Peer(boolean listens, int size, String directory) {
    this.listens = listens;
    this.size = size;
    source = new UnsafeBuffer(ByteBuffer.allocateDirect(size));
    copy = new UnsafeBuffer(ByteBuffer.allocateDirect(size));
    for (int i = 0; i < size; i++) source.putByte(i, (byte) i);
    Aeron aeron = Aeron.connect(new Aeron.Context().aeronDirectoryName(directory));
    String channel = "aeron:ipc?mtu=" + MTU + "|term-length=" + TERM_BYTES;
    Subscription subscription = aeron.addSubscription(channel, listens ? 1 : 2);
    publication = aeron.addExclusivePublication(channel, listens ? 2 : 1);
    if (listens) ready();
    while (subscription.hasNoImages() || !publication.isConnected()) Thread.onSpinWait();
    image = subscription.imageAtIndex(0);
    FragmentHandler whole = (buffer, offset, length, header) -> {
      copy.putBytes(0, buffer, offset, length);
      onWord.accept(copy.getInt(length - 4));
    };
    handler = size <= publication.maxPayloadLength() ? whole : new ImageFragmentAssembler(whole);
  }

  private static void ready() {
    System.out.println("ready");
    System.out.flush();
  }

  private void send(int word) {
    source.putInt(size - 4, word);
    if (size <= publication.maxPayloadLength()) {
      while (check(publication.tryClaim(size, claim)) < 0) Thread.onSpinWait();
      claim.buffer().putBytes(claim.offset(), source, 0, size);
      claim.commit();
    } else {
      while (check(publication.offer(source, 0, size)) < 0) Thread.onSpinWait();
    }
  }

  private static long check(long position) {
    if (position == Publication.CLOSED || position == Publication.NOT_CONNECTED) {
      throw new IllegalStateException("publication: " + position);
    }
    return position;
  }

  private void trip(int word) {
    send(word);
    do image.poll(handler, 1); while (lastWord != word);
  }

  private void echo() {
    onWord = word -> {
      ended = word == END_WORD;
      send(word);
    };
    while (!ended) image.poll(handler, POLL_LIMIT);
  }

  private void receivePhase() {
    ended = false;
    lastWord = 0;
    onWord = word -> {
      if (word == lastWord) {
        lastWord++;
        return;
      }
      if (word != END_WORD) {
        throw new IllegalStateException("expected word " + lastWord + ", got " + word);
      }
      ended = true;
      send(word);
    };
    while (!ended) {
      if (image.isClosed()) throw new IllegalStateException("image closed");
      image.poll(handler, POLL_LIMIT);
    }
  }

  private int sendPhase(double ms) {
    int interval = size <= 8192 ? 1024 : size <= 1 << 20 ? 16 : 1;
    long until = System.nanoTime() + (long) (ms * 1e6);
    int sequence = 0;
    ended = false;
    onWord = word -> ended = word == END_WORD;
    do {
      for (int i = 0; i < interval; i++) send(sequence++);
    } while (sequence < 4 || System.nanoTime() < until);
    send(END_WORD);
    while (!ended) image.poll(handler, POLL_LIMIT);
    return sequence;
  }

  private void measureTrips(double warmMs, double runMs) {
    onWord = word -> lastWord = word;
    long[] samples = new long[SAMPLES_MAX];
    int word = 0;
    int n = 0;
    for (double ms : new double[] {warmMs, runMs}) {
      long until = System.nanoTime() + (long) (ms * 1e6);
      long start;
      n = 0;
      do {
        start = System.nanoTime();
        trip(++word);
        samples[n++] = System.nanoTime() - start;
      } while (start < until && n < SAMPLES_MAX);
    }
    trip(END_WORD);
    print(Arrays.copyOf(samples, n));
  }

  /** The median cost of one empty interval is taken off each sample. */
  private static void print(long[] samples) {
    long[] costs = new long[20001];
    for (int i = 0; i < costs.length; i++) {
      long start = System.nanoTime();
      costs[i] = System.nanoTime() - start;
    }
    Arrays.sort(costs);
    long cost = costs[costs.length / 2];
    double sum = 0;
    for (int i = 0; i < samples.length; i++) {
      samples[i] = Math.max(0, samples[i] - cost);
      sum += samples[i];
    }
    Arrays.sort(samples);
    int last = samples.length - 1;
    System.out.printf(
        "{\"n\":%d,\"mean\":%.1f,\"p50\":%d,\"p99\":%d,\"p999\":%d,\"max\":%d}%n",
        samples.length, sum / samples.length, samples[(int) (0.5 * last)],
        samples[(int) (0.99 * last)], samples[(int) (0.999 * last)], samples[last]);
  }

  private void run(String job, double warmMs, double runMs) {
    boolean trips = job.startsWith("round-trip");
    if (listens && trips) {
      echo();
    } else if (listens) {
      receivePhase();
      receivePhase();
    } else if (trips) {
      measureTrips(warmMs, runMs);
    } else {
      sendPhase(warmMs);
      long start = System.nanoTime();
      int sent = sendPhase(runMs);
      double seconds = (System.nanoTime() - start) / 1e9;
      System.out.printf("{\"n\":%d,\"seconds\":%.9f}%n", sent, seconds);
    }
  }

  public static void main(String[] args) throws IOException {
    if (args.length != 6) {
      System.err.println("usage: listen|connect JOB SIZE WARM_MS RUN_MS ADDRESS");
      System.exit(64);
    }
    boolean listens = args[0].equals("listen");
    String directory = args[5] + ".d";
    if (listens) {
      MediaDriver.launch(new MediaDriver.Context()
          .aeronDirectoryName(directory)
          .dirDeleteOnStart(true)
          .ipcMtuLength(MTU)
          .threadingMode(ThreadingMode.SHARED));
    }
    double warmMs = Double.parseDouble(args[3]);
    double runMs = Double.parseDouble(args[4]);
    new Peer(listens, Integer.parseInt(args[2]), directory).run(args[1], warmMs, runMs);
    System.out.flush();
    // The driver must outlive the other side, which has ended when the harness closes standard
    // input. No orderly end: it takes Aeron seconds, and the harness removes the folder.
    if (listens) System.in.transferTo(OutputStream.nullOutputStream());
    Runtime.getRuntime().halt(0);
  }
}
