// Makes one video under a plan and on one worker, and compares their frames. `node examples/plan-against-one-device.js [PLAN]`
import { loadPlan, openEngine } from "ditrun";

const [name = "cp2"] = process.argv.slice(2);
const model = "tiny";

async function framesUnder(plan) {
  const engine = await openEngine({ model, plan });
  const frames = [];
  try {
    const onEvent = (event) => {
      if (event.kind === "frame") frames.push(event.pixels);
    };
    await engine.run({ prompt: "A red car", steps: 2 }, { onEvent });
  } finally {
    await engine.close();
  }
  return Buffer.concat(frames);
}

const alone = await framesUnder(await loadPlan("single", { model }));
const shared = await framesUnder(await loadPlan(name, { model }));
let largest = 0;
for (let i = 0; i < alone.length; i++) largest = Math.max(largest, Math.abs(alone[i] - shared[i]));
console.log(`${name} and one worker: no byte of ${alone.length} differs by more than ${largest}.`);
