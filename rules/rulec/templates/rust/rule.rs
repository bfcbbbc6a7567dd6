mod edge_rule;
use edge_rule::*;

#[derive(Default)]
struct Tally { n: i64, sum: f64 }                         // of one device and ten seconds

struct Warm { temp: Input, place: Input, device: Output, window_end: Output, n: Output, temp_avg: Output, limit: f64, skip: String }

impl Windowed for Warm {
    type Tally = Tally;

    fn open(plan: &mut Plan) -> Result<Self, String> {
        Ok(Warm {
            limit: plan.f64("limit")?,
            skip: plan.text("skip")?,
            temp: plan.input("temp", F64, OPTIONAL | NULLS),
            place: plan.input("place", STR, OPTIONAL | NULLS),
            device: plan.output_key(),
            window_end: plan.output_time("window_end"),
            n: plan.output("n", I64),
            temp_avg: plan.output("temp_avg", F64),
        })
    }

    fn length(&self) -> i64 { 10_000_000_000 }

    fn counts(&self, e: &Event) -> bool {
        !e.is_null(self.temp) && e.f64(self.temp) > self.limit && !e.is_null(self.place) && e.text(self.place) != self.skip
    }

    fn add(&mut self, e: &Event, tally: &mut Tally) {
        tally.n += 1;
        tally.sum += e.f64(self.temp);
    }

    fn close(&mut self, key: &str, _start: i64, end: i64, tally: &Tally, answer: &mut Answer) {
        answer.emit();
        answer.put_key(self.device, key);
        answer.put_i64(self.window_end, end);
        answer.put_i64(self.n, tally.n);
        answer.put_f64(self.temp_avg, tally.sum / tally.n as f64);
    }
}

rule!(InWindows<Warm>);
