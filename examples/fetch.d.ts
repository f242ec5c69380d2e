export interface Tokens {
  access_token: string;
  refresh_token: string;
  token_type: "Bearer";
  expires_in: number;
}

export type Factor = "totp" | "recovery_code" | "passkey";

/** The body of POST /auth/step-up. */
export type Proof = { current_password: string } | { code: string };

export class SessionEnded extends Error {}

export class Session {
  constructor(api?: string);
  readonly api: string;
  readonly tokens: Tokens | null;
  open(path: string, credentials: object, askCode?: (factors: Factor[]) => Promise<string>): Promise<Response>;
  fetch(input: string | Request, options?: RequestInit): Promise<Response>;
  request(input: string | Request, options?: RequestInit): Request;
  stepUp(proof: Proof): Promise<Response>;
  close(): Promise<Response>;
}

export function withStepUp(
  session: Session,
  prove: (factors: Factor[]) => Promise<Proof | null>,
): (input: string | Request, options?: RequestInit) => Promise<Response>;
