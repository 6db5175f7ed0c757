import { useEffect, useId, useRef } from "preact/hooks";
import type { ServedModel } from "./api.js";
import { type Draft, draftSteps } from "./draft.js";
import { Settings } from "./settings.js";
import { duration, lengthWords, sizeWords } from "./words.js";

interface Props {
  readonly model: ServedModel;
  readonly draft: Draft;
  readonly busy: boolean;
  /** Why the server has refused, or did not answer. */
  readonly problem: string | undefined;
  /** Seconds that the video may take, where that is known. */
  readonly estimate: number | undefined;
  onChange(change: Partial<Draft>): void;
  onSubmit(): void;
}

/** The form that asks for a video. */
export function Composer({ model, draft, busy, problem, estimate, onChange, onSubmit }: Props) {
  const id = useId();
  const form = useRef<HTMLFormElement>(null);
  const prompt = useRef<HTMLTextAreaElement>(null);
  const empty = draft.prompt.trim() === "";
  // As high as the text: browsers that can do so by style alone are few.
  useEffect(() => {
    const area = prompt.current;
    if (!area) return;
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight}px`;
  }, [draft.prompt]);
  const submit = (event: Event) => {
    event.preventDefault();
    if (empty) prompt.current?.focus();
    else if (form.current?.checkValidity() === false) {
      // The browser says what is wrong, where the field can be seen.
      form.current.querySelector("details")?.setAttribute("open", "");
      form.current.reportValidity();
    } else if (!busy) onSubmit();
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) submit(event);
  };
  return (
    <form ref={form} class="composer" aria-label="New video" onSubmit={submit} noValidate>
      <label class="unseen" for={`${id}-prompt`}>
        Prompt
      </label>
      <textarea
        id={`${id}-prompt`}
        ref={prompt}
        name="prompt"
        rows={2}
        placeholder="Describe a video …"
        value={draft.prompt}
        onInput={(event) => onChange({ prompt: event.currentTarget.value })}
        onKeyDown={onKey}
      />
      <div class="row">
        <Size model={model} draft={draft} onChange={onChange} />
        <Length model={model} draft={draft} onChange={onChange} />
        <Quality model={model} draft={draft} onChange={onChange} />
        <span class="go">
          {estimate !== undefined && <span class="note">about {duration(Math.ceil(estimate))}</span>}
          <button class="main" type="submit" aria-disabled={busy || empty} title="Ctrl + Enter">
            Generate
          </button>
        </span>
      </div>
      {problem !== undefined && (
        <p class="problem" role="alert">
          {problem}
        </p>
      )}
      <Settings model={model} draft={draft} onChange={onChange} />
    </form>
  );
}

type Part = Pick<Props, "model" | "draft" | "onChange">;

function Size({ model, draft, onChange }: Part) {
  const id = useId();
  return (
    <span class="field">
      <label for={id}>Size</label>
      <select id={id} value={draft.size} onChange={(event) => onChange({ size: event.currentTarget.value })}>
        {model.sizes.map((size) => (
          <option key={size} value={size}>
            {sizeWords(size)}
          </option>
        ))}
      </select>
    </span>
  );
}

/** Videos have 4n + 1 frames. */
function Length({ model, draft, onChange }: Part) {
  const id = useId();
  const words = lengthWords(draft.frames, model.fps);
  return (
    <span class="field">
      <label for={id}>
        Length <b>{words}</b>
      </label>
      <input
        id={id}
        type="range"
        min={1}
        max={model.max_num_frames}
        step={4}
        value={draft.frames}
        aria-valuetext={`${words}, ${draft.frames} frames`}
        onInput={(event) => onChange({ frames: Number(event.currentTarget.value) })}
      />
    </span>
  );
}

/** How many steps: as the model is usually sampled, or fewer for a first look. */
function Quality({ model, draft, onChange }: Part) {
  const few = draftSteps(model);
  const name = useId();
  if (few === undefined) return null;
  const presets = [
    { words: "Draft", steps: `${few}` },
    { words: "Full", steps: "" },
  ];
  const usual = `${model.num_inference_steps}`;
  const isChosen = (steps: string) => draft.steps === steps || (steps === "" && draft.steps === usual);
  return (
    <span class="field">
      <span class="name" id={name}>
        Quality
      </span>
      <span class="presets" role="radiogroup" aria-labelledby={name}>
        {presets.map(({ words, steps }) => (
          <label key={words} title={`${steps || usual} steps`}>
            <input type="radio" name={name} checked={isChosen(steps)} onChange={() => onChange({ steps })} />
            <span>{words}</span>
          </label>
        ))}
      </span>
    </span>
  );
}
