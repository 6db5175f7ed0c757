import { useId } from "preact/hooks";
import type { ServedModel } from "./api.js";
import type { Draft } from "./draft.js";

interface Props {
  readonly model: ServedModel;
  readonly draft: Draft;
  onChange(change: Partial<Draft>): void;
}

/** What most videos leave to the model. */
export function Settings({ model, draft, onChange }: Props) {
  const id = useId();
  const usual = (value: number | null) => (value === null ? "as usual" : `${value}`);
  return (
    <details class="settings">
      <summary>More settings</summary>
      <div class="grid">
        <p class="wide field">
          <label for={`${id}-negative`}>What it should not show</label>
          <textarea
            id={`${id}-negative`}
            rows={2}
            placeholder="As the model’s authors advise"
            value={draft.negative}
            onInput={(event) => onChange({ negative: event.currentTarget.value })}
          />
        </p>
        <NumberField
          {...{ label: "Steps", hint: usual(model.num_inference_steps), min: 1, max: 200, step: 1, value: draft.steps }}
          onChange={(steps) => onChange({ steps })}
        />
        <NumberField
          {...{
            label: "Guidance",
            hint: usual(model.guidance_scale),
            min: 0,
            max: 20,
            step: "any",
            value: draft.guidance,
          }}
          onChange={(guidance) => onChange({ guidance })}
        />
        <NumberField
          {...{ label: "Shift", hint: usual(model.flow_shift), min: 0.01, max: 100, step: "any", value: draft.shift }}
          onChange={(shift) => onChange({ shift })}
        />
        <p class="field">
          <label for={`${id}-seed`}>Seed</label>
          <input
            id={`${id}-seed`}
            inputMode="numeric"
            pattern="[0-9]*"
            placeholder="random"
            value={draft.seed}
            onInput={(event) => onChange({ seed: event.currentTarget.value.replace(/\D/g, "") })}
          />
        </p>
        {model.loras.length > 0 && <Loras model={model} draft={draft} onChange={onChange} />}
      </div>
    </details>
  );
}

interface NumberProps {
  readonly label: string;
  /** What holds where nothing is typed. */
  readonly hint: string;
  readonly min: number;
  readonly max: number;
  readonly step: number | "any";
  readonly value: string;
  onChange(value: string): void;
}

function NumberField({ label, hint, min, max, step, value, onChange }: NumberProps) {
  const id = useId();
  return (
    <p class="field">
      <label for={id}>{label}</label>
      <input
        {...{ id, type: "number", min, max, step, value, placeholder: hint }}
        onInput={(event) => onChange(event.currentTarget.value)}
      />
    </p>
  );
}

function Loras({ model, draft, onChange }: Props) {
  const change = (name: string, scale: number | undefined) => {
    const { [name]: _, ...others } = draft.loras;
    onChange({ loras: scale === undefined ? others : { ...others, [name]: scale } });
  };
  return (
    <fieldset class="wide loras">
      <legend>LoRA</legend>
      {model.loras.map((name) => {
        const scale = draft.loras[name];
        return (
          <div key={name} class="lora">
            <label>
              <input
                type="checkbox"
                checked={scale !== undefined}
                onChange={(event) => change(name, event.currentTarget.checked ? 1 : undefined)}
              />
              {name}
            </label>
            {scale !== undefined && (
              <input
                {...{ type: "number", step: 0.1, min: -10, max: 10, value: scale, "aria-label": `Strength of ${name}` }}
                onChange={(event) => change(name, Number(event.currentTarget.value))}
              />
            )}
          </div>
        );
      })}
    </fieldset>
  );
}
