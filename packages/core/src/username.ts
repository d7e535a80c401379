/** Account names (DESIGN 8): [a-z0-9._-]{2,32}, one spelling each. `@` and `:` are kept for `name@server`. */

export const USERNAME_CHARS_MIN = 2;
export const USERNAME_CHARS_MAX = 32;

export type UsernameCheck =
  | { readonly kind: 'canonical'; readonly username: string }
  /** `reason` names what is wrong without repeating the name, which may hold anything. */
  | { readonly kind: 'invalid'; readonly reason: string };

/** Says whether this is a canonical account name, and if not, why. Changes nothing: `Alice` is not `alice`. */
export function checkUsername(username: string): UsernameCheck {
  const reason = whyInvalid(username);
  return reason === undefined ? { kind: 'canonical', username } : { kind: 'invalid', reason };
}

export function isUsername(username: string): boolean {
  return whyInvalid(username) === undefined;
}

function whyInvalid(username: string): string | undefined {
  if (username.length < USERNAME_CHARS_MIN) return `a username has at least ${USERNAME_CHARS_MIN} characters`;
  if (username.length > USERNAME_CHARS_MAX) return `a username has at most ${USERNAME_CHARS_MAX} characters`;
  if (/^[a-z0-9._-]*$/.test(username)) return undefined;
  if (/[@:]/.test(username)) return 'a username has no "@" and no ":"; they are reserved for name@server';
  if (/^[A-Za-z0-9._-]*$/.test(username)) return 'a username has no capital letters';
  if (/\s/.test(username)) return 'a username has no spaces';
  return 'a username has only the characters a-z, 0-9, ".", "_" and "-"';
}
