import { F64, I64, Input, NOTHING, NOWHERE, NULLS, OPTIONAL, Output, STR, Windowed, emit, input, output, outputKey, outputTime, paramF64, paramText, putKey, run }
  from "./edge_rule";

class Tally { n: i64 = 0; sum: f64 = 0; }                 // of one device and ten seconds

class Warm extends Windowed<Tally> {
  temp: Input = NOTHING; place: Input = NOTHING;
  device: Output = NOWHERE; windowEnd: Output = NOWHERE; n: Output = NOWHERE; tempAvg: Output = NOWHERE;
  limit: f64 = 0;
  skip: string = "";

  open(): void {
    this.limit = paramF64("limit");
    this.skip = paramText("skip");
    this.temp = input("temp", F64, OPTIONAL | NULLS);
    this.place = input("place", STR, OPTIONAL | NULLS);
    this.windowEvery(10_000_000_000);
    this.device = outputKey();
    this.windowEnd = outputTime("window_end");
    this.n = output("n", I64);
    this.tempAvg = output("temp_avg", F64);
  }

  counts(row: u32): bool {
    return !this.temp.isNull(row) && this.temp.f64(row) > this.limit && !this.place.isNull(row) && this.place.text(row) != this.skip;
  }

  add(row: u32, tally: Tally): void {
    tally.n++;
    tally.sum += this.temp.f64(row);
  }

  close(start: i64, end: i64, tally: Tally): void {
    emit();
    putKey(this.device, this.key);
    this.windowEnd.i64(end);
    this.n.i64(tally.n);
    this.tempAvg.f64(tally.sum / <f64>tally.n);
  }
}

run(new Warm());
export { tg_abi, tg_alloc, tg_open, tg_process } from "./edge_rule";
