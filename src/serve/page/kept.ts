// What a tab keeps over a reload: what was typed. Everything else is asked of the server.

const keyName = "ditrun.key";
const draftName = "ditrun.draft";

/** The server's key; only this tab keeps it, and forgets it when it is closed. */
export const keptKey = {
  read: (): string | undefined => sessionStorage.getItem(keyName) ?? undefined,
  write: (key: string) => sessionStorage.setItem(keyName, key),
  forget: () => sessionStorage.removeItem(keyName),
};

/** The form, as JSON. */
export const keptDraft = {
  read: (): string | undefined => sessionStorage.getItem(draftName) ?? undefined,
  write: (draft: string) => sessionStorage.setItem(draftName, draft),
};
