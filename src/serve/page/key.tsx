import { useState } from "preact/hooks";

/** Asks for the server's key. @param wrong one was given, and the server does not take it. */
export function KeyForm({ wrong, onKey }: { readonly wrong: boolean; readonly onKey: (key: string) => void }) {
  const [key, setKey] = useState("");
  const submit = (event: Event) => {
    event.preventDefault();
    if (key.trim() !== "") onKey(key.trim());
  };
  return (
    <form class="key" onSubmit={submit}>
      <h2>This server asks for a key</h2>
      <label for="key">Key</label>
      <input
        id="key"
        type="password"
        autocomplete="current-password"
        value={key}
        aria-invalid={wrong}
        aria-describedby="key-note"
        onInput={(event) => setKey(event.currentTarget.value)}
      />
      <p id="key-note" class={wrong ? "problem" : "note"} role={wrong ? "alert" : undefined}>
        {wrong
          ? "The server does not take this key. Ask whoever runs it."
          : "Whoever runs the server has it. This tab keeps it until you close it."}
      </p>
      <button class="main" type="submit" disabled={key.trim() === ""}>
        Open
      </button>
    </form>
  );
}
