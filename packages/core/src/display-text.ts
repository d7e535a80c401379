/* oxlint-disable no-control-regex -- finding control characters is what this file is for */
/**
 * Text from other people, made safe to print (THREATS 28). A name or message may hold terminal escape sequences that
 * move the cursor or retitle the window, controls that overwrite a line, and bidirectional overrides that show words in
 * an order their author chose. All are removed; letters, marks and emoji of every script stay.
 */

export interface DisplayOptions {
  /** Keep line breaks (as \n); otherwise they become spaces, so that a name cannot start a line of its own. */
  readonly multiline?: boolean;
  /** Cut after this many characters and add "…". */
  readonly charsMax?: number;
}

// A whole escape sequence goes, not just its first byte: the rest would show as litter. OSC, DCS, SOS, PM and APC run
// to ST or BEL; each class excludes its terminator, so matching is linear.
const SEQUENCES =
  /(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x9c|\x1b\\)?|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|\x1b[ -/]*[0-~]?/g;
// C0 but \t \n, DEL and C1; Arabic letter mark, zero width space and directional marks, line and paragraph separators,
// embeddings and overrides, invisible operators, isolates and deprecated formats, byte order mark, interlinear marks,
// tag characters. The joiners U+200C and U+200D stay: scripts and emoji need them.
const UNSAFE =
  /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/** The text without anything that could steer a terminal or reorder what is read. */
export function displayText(text: string, options: DisplayOptions = {}): string {
  let out = text.toWellFormed().replace(/\r\n?|\u2028|\u2029/g, '\n');
  out = out.replace(SEQUENCES, '').replace(UNSAFE, '');
  out = options.multiline === true ? out.replace(/\t/g, '    ') : out.replace(/[\t\n]+/g, ' ').trim();
  if (options.charsMax !== undefined && out.length > options.charsMax) {
    const characters = Array.from(out);
    if (characters.length > options.charsMax) out = `${characters.slice(0, options.charsMax).join('')}…`;
  }
  return out;
}
