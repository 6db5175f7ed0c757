// Three prompts through one engine: the weights are loaded once. `node examples/three-prompts.js [MODEL]`
import { openEngine } from "ditrun";

const [model = "tiny"] = process.argv.slice(2);
const engine = await openEngine({ model });
try {
  for (const prompt of ["A red car", "A blue boat", "Two cats with boxing gloves"]) {
    const { frames, width, height } = await engine.run(
      { prompt, steps: 2 },
      {
        onEvent: (event) => {
          if (event.kind === "step") console.log(`step ${event.done} of ${event.total}`);
        },
      },
    );
    console.log(`${prompt}: ${frames} frames of ${width}×${height}`);
  }
} finally {
  await engine.close();
}
